// One panel of a dashboard: sends its queries and renders the results with Grafana's components.
import { DataFrame, FieldDisplay, GrafanaTheme2, VizOrientation, dateTime, getDisplayValueAlignmentFactors, getFieldDisplayValues } from "@grafana/data";
import {
  BarGauge,
  BigValue,
  PanelChrome,
  TimeSeries,
  VizRepeater,
  useTheme2,
} from "@grafana/ui";
import { TableNG } from "@grafana/ui/unstable";
import { useEffect, useState } from "react";
import { fieldConfig, prepared } from "./options";
import { Span, frames } from "./prometheus";

type Props = { panel: any; width: number; height: number; span: Span; values: Record<string, string>; marks: number[]; done: (error?: string) => void };

export function Panel({ panel, width, height, span, values, marks, done }: Props) {
  const theme = useTheme2();
  const [data, setData] = useState<DataFrame[]>();
  useEffect(() => {
    Promise.all(panel.targets.map((target: any) => frames(target, span, values, panel.targets.length === 1)))
      .then((found) => prepared(panel, found.flat(), theme))
      .then((ready) => { setData(ready); done(); })
      .catch((error) => { setData([]); done(`${panel.title}: ${error.message}`); });
  }, []);
  return (
    <PanelChrome title={panel.title} description={panel.description} width={width} height={height} padding={panel.type === "table" ? "none" : "md"}>
      {(w: number, h: number) => (data ? draw(panel, data, w, h, span, marks, theme) : null)}
    </PanelChrome>
  );
}

function draw(panel: any, data: DataFrame[], width: number, height: number, span: Span, marks: number[], theme: GrafanaTheme2) {
  switch (panel.type) {
    case "stat":
      return <BigValue {...bigValue(panel, data, theme)} width={width} height={height} theme={theme} />;
    case "bargauge":
      return bars(panel, data, width, height, theme);
    case "table":
      return data[0]?.length ? <TableNG data={data[0]} width={width} height={height} structureRev={1} fieldConfig={panel.fieldConfig} getActions={() => []} sortBy={panel.options.sortBy} /> : <NoData panel={panel} />;
    case "timeseries":
      return data.length ? curves(panel, data, width, height, span, marks) : <NoData panel={panel} />;
    default:
      return <p>This preview cannot draw a {panel.type}.</p>;
  }
}

function NoData({ panel }: { panel: any }) {
  return <div style={{ display: "grid", placeItems: "center", height: "100%", opacity: 0.7 }}>{panel.type === "stat" ? "" : "No data"}</div>;
}

function displays(panel: any, data: DataFrame[], theme: GrafanaTheme2): FieldDisplay[] {
  return getFieldDisplayValues({
    fieldConfig: fieldConfig(panel),
    reduceOptions: panel.options.reduceOptions,
    replaceVariables: (text: string) => text,
    theme,
    data,
    timeZone: "utc",
  });
}

function bigValue(panel: any, data: DataFrame[], theme: GrafanaTheme2) {
  const { display } = displays(panel, data, theme)[0];
  // A single value needs no title, unless the panel shows it always.
  const title = panel.options.textMode === "value_and_name" ? display.title : undefined;
  return { value: { ...display, title }, colorMode: panel.options.colorMode, graphMode: panel.options.graphMode, justifyMode: "auto" as any };
}

function bars(panel: any, data: DataFrame[], width: number, height: number, theme: GrafanaTheme2) {
  return (
    <VizRepeater
      source={data}
      width={width}
      height={height}
      orientation={VizOrientation.Horizontal}
      itemSpacing={6}
      getValues={() => displays(panel, data, theme)}
      getAlignmentFactors={getDisplayValueAlignmentFactors}
      renderValue={({ value, width: w, height: h, alignmentFactors }: any) => (
        <BarGauge
          value={value.display} field={value.field} width={w} height={h} theme={theme} orientation={VizOrientation.Horizontal}
          displayMode={panel.options.displayMode} alignmentFactors={alignmentFactors} itemSpacing={6} showUnfilled={true}
          display={value.view?.getFieldDisplayProcessor(value.colIndex)}
        />
      )}
    />
  );
}

function curves(panel: any, data: DataFrame[], width: number, height: number, span: Span, marks: number[]) {
  return (
    <TimeSeries
      frames={data}
      timeRange={{ from: moment(span.from), to: moment(span.to), raw: { from: "now-3h", to: "now" } } as any}
      timeZone="utc"
      width={width}
      height={height}
      legend={panel.options.legend}
    >
      {(config: any) => {
        config.addHook("draw", (plot: any) => drawMarks(plot, marks));
        return null;
      }}
    </TimeSeries>
  );
}

// Annotations as in Grafana: a dashed line and a marker below the axis.
function drawMarks(plot: any, marks: number[]) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = "#FF9830";
  ctx.setLineDash([4, 4]);
  for (const at of marks) {
    const x = plot.valToPos(at, "x", true);
    if (x >= bbox.left && x <= bbox.left + bbox.width) {
      ctx.beginPath();
      ctx.moveTo(x, bbox.top);
      ctx.lineTo(x, bbox.top + bbox.height);
      ctx.stroke();
      ctx.beginPath();
      ctx.moveTo(x, bbox.top + bbox.height - 6);
      ctx.lineTo(x - 5, bbox.top + bbox.height);
      ctx.lineTo(x + 5, bbox.top + bbox.height);
      ctx.fill();
    }
  }
  ctx.restore();
}

function moment(seconds: number) {
  return dateTime(seconds * 1000);
}
