// Renders a dashboard's checked-in JSON with Grafana's components over a real Prometheus.
//
//   ?board=fleet&to=1795003200&var-nodename=train-1&theme=light
import { createTheme } from "@grafana/data";
import { GlobalStyles, ThemeContext } from "@grafana/ui";
import { useMemo, useState } from "react";
import { createRoot } from "react-dom/client";
import { register } from "./options";
import { Panel } from "./panel";
import { Span, ask, filled } from "./prometheus";

const CELL_HEIGHT = 30, GAP = 8, HEADER = 84;
const asked = new URLSearchParams(location.search);
const theme = createTheme({ colors: { mode: asked.get("theme") === "light" ? "light" : "dark" } });

type Board = any;

function values(board: Board, span: Span): Record<string, string> {
  const found: Record<string, string> = { __range: `${Math.round(span.to - span.from)}s`, __rate_interval: "2m" };
  for (const variable of board.templating.list) {
    found[variable.name] = asked.get(`var-${variable.name}`) ?? variable.allValue ?? variable.query;
  }
  return found;
}

function spanOf(board: Board): Span {
  const to = Number(asked.get("to"));
  const hours = Number(asked.get("hours") ?? /now-(\d+)h/.exec(board.time.from)![1]);
  return { from: to - 3600 * hours, to };
}

async function marksOf(board: Board, span: Span, filledIn: Record<string, string>): Promise<number[]> {
  const all = (board.annotations.list ?? []).map((each: any) => ask("query", { query: filled(each.expr, filledIn), time: String(span.to) }));
  return [...new Set((await Promise.all(all)).flat().map((each: any) => Number(each.value[1])))];
}

function Chip({ children, bright }: { children: any; bright?: boolean }) {
  const { colors, shape } = theme;
  return (
    <span style={{ border: `1px solid ${colors.border.medium}`, borderRadius: shape.radius.default, padding: "3px 10px", background: bright ? colors.background.secondary : colors.background.primary }}>
      {children}
    </span>
  );
}

function Header({ board, titles }: { board: Board; titles: string[] }) {
  const shown = board.templating.list.filter((each: any) => each.type !== "datasource" && each.hide !== 2);
  return (
    <header style={{ height: HEADER, boxSizing: "border-box", padding: "10px 0 0" }}>
      <div style={{ display: "flex", gap: 10, alignItems: "baseline" }}>
        <h1 style={{ fontSize: 20, margin: 0 }}>{board.title}</h1>
        <span style={{ color: theme.colors.text.secondary }}>{board.description}</span>
      </div>
      <div style={{ display: "flex", gap: 8, marginTop: 10, fontSize: 12 }}>
        {shown.map((each: any) => (
          <Chip key={each.name} bright>
            {each.label}: <b>{asked.get(`text-${each.name}`) ?? asked.get(`var-${each.name}`) ?? (each.allValue ? "All" : each.query)}</b>
          </Chip>
        ))}
        <span style={{ flex: 1 }} />
        {titles.map((title) => <Chip key={title}>{title}</Chip>)}
      </div>
    </header>
  );
}

function Dashboard({ board, titles, span, filledIn, marks }: { board: Board; titles: string[]; span: Span; filledIn: Record<string, string>; marks: number[] }) {
  const width = window.innerWidth - 2 * GAP;
  const column = (width + GAP) / 24;
  const drawn = useMemo(() => board.panels.filter((panel: any) => panel.type !== "row").length, [board]);
  const [state, setState] = useState({ done: 0, errors: [] as string[] });
  const done = (error?: string) => setState((s) => ({ done: s.done + 1, errors: error ? [...s.errors, error] : s.errors }));
  return (
    <main
      id="board" data-ready={state.done === drawn} data-errors={JSON.stringify(state.errors)}
      style={{ padding: `0 ${GAP}px`, background: theme.colors.background.canvas, color: theme.colors.text.primary, minHeight: "100vh", boxSizing: "border-box" }}
    >
      <Header board={board} titles={titles} />
      <div style={{ position: "relative" }}>
        {board.panels.map((panel: any) => {
          const { x, y, w, h } = panel.gridPos;
          const place = { position: "absolute" as const, left: x * column, top: y * (CELL_HEIGHT + GAP), width: w * column - GAP, height: h * (CELL_HEIGHT + GAP) - GAP };
          return (
            <div key={panel.id} style={place}>
              {panel.type === "row" ? (
                <h2 style={{ fontSize: 16, fontWeight: 500, margin: "4px 0" }}>⌄ {panel.title}</h2>
              ) : (
                <Panel panel={panel} width={place.width} height={place.height} span={span} values={filledIn} marks={marks} done={done} />
              )}
            </div>
          );
        })}
      </div>
    </main>
  );
}

async function start() {
  Date.now = () => 1000 * Number(asked.get("to")); // relative times refer to the end of the history
  register();
  const board: Board = await (await fetch(`/boards/${asked.get("board")}.json`)).json();
  const titles: string[] = await (await fetch("/boards/titles.json")).json();
  const span = spanOf(board);
  const filledIn = values(board, span);
  const marks = await marksOf(board, span, filledIn);
  createRoot(document.getElementById("root")!).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles isExtensionSidebarOpen={false} />
      <Dashboard board={board} titles={titles} span={span} filledIn={filledIn} marks={marks} />
    </ThemeContext.Provider>,
  );
}

start();
