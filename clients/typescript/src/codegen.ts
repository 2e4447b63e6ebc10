/** The TypeScript types of the scalars, for `config.scalars` of GraphQL Code Generator. */
export const scalars = {
  CurrencyCode: "string",
  Cursor: "string",
  DateTime: "string",
  Decimal: "string",
  Duration: "string",
  JSON: "unknown",
  Long: "number",
  StringMap: "Record<string, string>",
} as const;

/** The `config` of GraphQL Code Generator: with it, a scalar that has no type here is an error. */
export const config = { strictScalars: true, scalars } as const;
