// Starts GraphiQL against this server. Tokens typed into the header editor stay
// in the page: they are not written to the browser's storage.
(function () {
  "use strict";
  var query = [
    "# Press the play button, or Ctrl-Enter, to run this.",
    "#",
    "# To call as a user, put this into Headers below:",
    '#   { "Authorization": "Bearer <token>" }',
    "",
    "query Hello {",
    "  __typename",
    "}",
    "",
  ].join("\n");
  var endpoint = new URL("graphql", document.baseURI); // beside this page, whatever prefix a proxy adds
  var app = React.createElement(GraphiQL, {
    fetcher: GraphiQL.createFetcher({
      url: endpoint.href,
      // The headers of the editor go into the payload of connection_init.
      subscriptionUrl: endpoint.href.replace(/^http/, "ws"),
    }),
    defaultQuery: query,
    defaultEditorToolsVisibility: "headers",
    shouldPersistHeaders: false,
  });
  ReactDOM.createRoot(document.getElementById("graphiql")).render(app);
})();
