// Queries and data frames as in Grafana's Prometheus data source.
import { DataFrame, FieldType, Labels, createDataFrame } from "@grafana/data";

export type Target = { refId: string; expr: string; instant?: boolean; format?: string; legendFormat?: string };
export type Span = { from: number; to: number }; // Unix time in seconds

type Series = { metric: Labels; value?: [number, string]; values?: [number, string][] };

export async function ask(path: string, form: Record<string, string>): Promise<Series[]> {
  const answer = await fetch(`/api/v1/${path}?${new URLSearchParams(form)}`);
  const body = await answer.json();
  if (body.status !== "success") {
    throw new Error(body.error);
  }
  return body.data.result;
}

// `alone`: the only query of a table, whose column is named `Value`.
export async function frames(target: Target, span: Span, values: Record<string, string>, alone: boolean): Promise<DataFrame[]> {
  const query = filled(target.expr, values);
  if (target.instant) {
    const found = await ask("query", { query, time: String(span.to) });
    return target.format === "table" ? [table(found, target.refId, alone ? "Value" : `Value #${target.refId}`)] : found.map((each) => curve(each, target));
  }
  const step = Math.max(15, Math.round((span.to - span.from) / 360));
  const found = await ask("query_range", { query, start: String(span.from), end: String(span.to), step: String(step) });
  return found.map((each) => curve(each, target, step));
}

export function filled(text: string, values: Record<string, string>): string {
  const names = Object.keys(values).sort((a, b) => b.length - a.length);
  return names.reduce((found, name) => found.replaceAll(`\${${name}}`, values[name]).replaceAll(`$${name}`, values[name]), text);
}

function curve(series: Series, target: Target, step = 0): DataFrame {
  const points = withGaps(series.values ?? [series.value!], step);
  const name = target.legendFormat?.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, label) => series.metric[label] ?? "");
  return createDataFrame({
    refId: target.refId,
    fields: [
      { name: "Time", type: FieldType.time, values: points.map(([at]) => at * 1000), config: {} },
      {
        name: "Value",
        type: FieldType.number,
        labels: series.metric,
        values: points.map(([, value]) => value),
        config: name ? { displayNameFromDS: name } : {},
      },
    ],
  });
}

// Gaps in the result stay gaps, as in Grafana's data source.
function withGaps(points: [number, string][], step: number): [number, number | null][] {
  const found: [number, number | null][] = [];
  for (const [at, value] of points) {
    const last = found[found.length - 1];
    if (step && last && at - last[0] > 1.5 * step) {
      found.push([last[0] + step, null]);
    }
    found.push([at, Number(value)]);
  }
  return found;
}

function table(found: Series[], refId: string, valueName: string): DataFrame {
  const labels = [...new Set(found.flatMap((each) => Object.keys(each.metric)))].filter((name) => name !== "__name__").sort();
  return createDataFrame({
    refId,
    fields: [
      { name: "Time", type: FieldType.time, values: found.map((each) => each.value![0] * 1000), config: {} },
      ...labels.map((name) => ({
        name,
        type: FieldType.string,
        values: found.map((each) => each.metric[name] ?? ""),
        config: { filterable: true },
      })),
      { name: valueName, type: FieldType.number, values: found.map((each) => Number(each.value![1])), config: {} },
    ],
  });
}
