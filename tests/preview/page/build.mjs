// One file of the page and all that it needs. Code editors and maps, which no panel of ours has, are left out.
import { build } from "esbuild";

const UNUSED = /monaco-editor|ReactMonacoEditor\.mjs|OpenLayersProvider|^ol(\/|$)/;

await build({
  entryPoints: ["src/main.tsx"],
  outfile: "dist/main.js",
  bundle: true,
  format: "esm",
  jsx: "automatic",
  define: { "process.env.NODE_ENV": '"production"', global: "globalThis" },
  loader: { ".svg": "dataurl", ".woff2": "dataurl" },
  plugins: [
    {
      name: "unused",
      setup(bundling) {
        bundling.onResolve({ filter: UNUSED }, (found) => ({ path: found.path, namespace: "unused" }));
        bundling.onLoad({ filter: /.*/, namespace: "unused" }, () => ({ contents: "export const OpenLayersProvider = ({ children }) => children; export default () => null;" }));
      },
    },
  ],
});
