/** The TypeScript types of the scalars, for `config.scalars` of GraphQL Code Generator. */
export declare const scalars: {
    readonly CurrencyCode: "string";
    readonly Cursor: "string";
    readonly DateTime: "string";
    readonly Decimal: "string";
    readonly Duration: "string";
    readonly JSON: "unknown";
    readonly Long: "number";
    readonly StringMap: "Record<string, string>";
};
/** The `config` of GraphQL Code Generator: with it, a scalar that has no type here is an error. */
export declare const config: {
    readonly strictScalars: true;
    readonly scalars: {
        readonly CurrencyCode: "string";
        readonly Cursor: "string";
        readonly DateTime: "string";
        readonly Decimal: "string";
        readonly Duration: "string";
        readonly JSON: "unknown";
        readonly Long: "number";
        readonly StringMap: "Record<string, string>";
    };
};
