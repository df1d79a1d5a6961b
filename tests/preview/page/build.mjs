// Bundles the page. Code editors and maps, which our panels do not use, are excluded.
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
