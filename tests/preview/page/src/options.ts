// Field options and transformations that Grafana's core registers at start-up, but its packages do not.
import {
  DataFrame,
  FieldColorModeId,
  FieldConfigOptionsRegistry,
  FieldConfigSource,
  GrafanaTheme2,
  applyFieldOverrides,
  cacheFieldDisplayNames,
  identityOverrideProcessor,
  standardFieldConfigEditorRegistry,
  standardTransformers,
  standardTransformersRegistry,
  transformDataFrame,
} from "@grafana/data";
import { lastValueFrom } from "rxjs";

const STANDARD = ["unit", "min", "max", "decimals", "displayName", "noValue", "thresholds", "mappings", "links", "color", "filterable"];

export function register(): void {
  standardFieldConfigEditorRegistry.setInit(() => STANDARD.map((id) => option(id, id, false)) as any);
  const every = new Map(Object.values(standardTransformers).map((each: any) => [each.id, each]));
  standardTransformersRegistry.setInit(
    () => [...every.values()].map((each) => ({ id: each.id, name: each.name, transformation: async () => each, editor: null })) as any,
  );
}

function option(id: string, path: string, isCustom: boolean) {
  return {
    id, path, isCustom, name: id, category: [], editor: () => null, override: () => null,
    process: identityOverrideProcessor, shouldApply: () => true, settings: {}, getItemsCount: () => 0,
  };
}

// All options of this panel, including those of its type.
function registry(config: FieldConfigSource): FieldConfigOptionsRegistry {
  const overridden = config.overrides.flatMap((each) => each.properties.map((p) => p.id)).filter((id) => id.startsWith("custom."));
  const own = [...new Set([...Object.keys(config.defaults.custom ?? {}), ...overridden.map((id) => id.slice("custom.".length))])];
  return new FieldConfigOptionsRegistry(
    () => [...STANDARD.map((id) => option(id, id, false)), ...own.map((path) => option(`custom.${path}`, path, true))] as any,
  );
}

export async function prepared(panel: any, data: DataFrame[], theme: GrafanaTheme2): Promise<DataFrame[]> {
  const transformed = panel.transformations?.length
    ? await lastValueFrom(transformDataFrame(panel.transformations, data, { interpolate: (text: string) => text } as any))
    : data;
  const found = applyFieldOverrides({
    data: transformed,
    fieldConfig: fieldConfig(panel),
    fieldConfigRegistry: registry(panel.fieldConfig),
    replaceVariables: (text: string) => text,
    theme,
    timeZone: "utc",
  });
  cacheFieldDisplayNames(found);
  return found;
}

export function fieldConfig(panel: any): FieldConfigSource {
  const mode = panel.type === "timeseries" ? FieldColorModeId.PaletteClassic : FieldColorModeId.Thresholds;
  return { ...panel.fieldConfig, defaults: { color: { mode }, ...panel.fieldConfig.defaults } };
}
