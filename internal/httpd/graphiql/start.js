// Starts GraphiQL against this server, with the requests of the account that account.js signs in. Tabs and their
// headers are kept for as long as the browser's tab lives.
(function () {
  "use strict";
  var maxEvents = 100; // of a subscription that are shown
  var endpoint = new URL("graphql", document.baseURI); // beside this page, whatever prefix a proxy adds
  var send = GraphiQL.createFetcher({ url: endpoint.href });

  // fetcher sends an operation with the account's token, unless the Headers editor has one.
  async function fetcher(params, given) {
    var options = given || {}, own = options.headers || {};
    var named = Object.keys(own).some(function (name) { return name.toLowerCase() === "authorization"; });
    var authorization = named ? async function () { return {}; } : backplaneAccount.authorization;
    if (isSubscription(params, options)) {
      return listResults(backplaneSubscribe(endpoint.href.replace(/^http/, "ws"), params, own, authorization));
    }
    return send(params, Object.assign({}, options, { headers: Object.assign({}, await authorization(), own) }));
  }

  // isSubscription reports it by the parsed document; GraphiQL's own introspection query has none.
  function isSubscription(params, options) {
    return !!options.documentAST && options.documentAST.definitions.some(function (d) {
      return d.operation === "subscription" && (!params.operationName || d.name && d.name.value === params.operationName);
    });
  }

  // listResults returns the results of a subscription as a growing list, the newest first.
  function listResults(results) {
    var shown = { received: 0, newestFirst: [] };
    return {
      [Symbol.asyncIterator]: function () { return this; },
      next: async function () {
        var step = await results.next();
        if (step.done) return step;
        shown = { received: shown.received + 1, newestFirst: [step.value].concat(shown.newestFirst).slice(0, maxEvents) };
        return { done: false, value: shown };
      },
      return: function () { return results.return(); },
    };
  }

  var tabs = [
    `# Press the play button, or Ctrl-Enter, to run this.
query Products {
  products(first: 10, filter: {active: true}) {
    totalCount
    nodes { sku name price { amount currency } stock }
  }
}
`,
    `# Run this to have an account. Then sign in above: all tabs carry its token.
mutation SignUp {
  signUp(input: {username: "grace", password: "a long enough password"}) {
    user { id username roles }
    userErrors { code message path }
  }
}
`,
    `# Needs an account. For calls that may be repeated, put an Idempotency-Key into Headers below.
mutation PlaceOrder {
  placeOrder(input: {items: [{sku: "TEA-GREEN", quantity: 2}]}) {
    order { id number status total { amount currency } items { name quantity } }
    userErrors { code message path }
  }
}
`,
    `# Needs an account. It lists events as they happen: place an order in the tab before, and see it paid.
subscription FollowOrders {
  orderEvents {
    type
    occurredAt
    subject {
      ... on Order { number status total { amount currency } payment { status } }
      ... on Payment { paymentStatus: status attempts { instance outcome } order { number status } }
    }
  }
}
`,
  ];
  var app = React.createElement(GraphiQL, {
    fetcher: fetcher,
    storage: window.sessionStorage,
    shouldPersistHeaders: true,
    defaultTabs: tabs.map(function (query) { return { query: query }; }),
    defaultEditorToolsVisibility: "headers",
  });
  ReactDOM.createRoot(document.getElementById("graphiql")).render(app);
})();
