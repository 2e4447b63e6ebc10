// Follows a subscription over a WebSocket of its own (graphql-transport-ws), whose token is renewed while it is open.
(function () {
  "use strict";
  var renewalPause = 1000; // milliseconds between two looks at the token

  // subscribe returns the results of the subscription. authorization returns the headers of the caller; those that are
  // given take precedence.
  function subscribe(url, params, given, authorization) {
    var results = [], end = null, wake = function () {}; // end: { error } once there are no more
    var socket = new WebSocket(url, "graphql-transport-ws");
    var renewal = null, sent = "";

    function send(message) { socket.send(JSON.stringify(message)); }
    function finish(error) {
      if (end) return;
      end = { error: error };
      clearInterval(renewal);
      socket.close(1000);
      wake();
    }
    function renew() {
      return authorization().then(function (headers) {
        if (!headers.Authorization || headers.Authorization === sent) return;
        sent = headers.Authorization;
        send({ type: "ping", payload: { authorization: sent } });
      }, function () {}); // the server closes the socket when the token ends
    }

    socket.onopen = function () {
      authorization().then(function (headers) {
        sent = headers.Authorization || "";
        send({ type: "connection_init", payload: Object.assign({}, headers, given) });
      }).catch(finish);
    };
    socket.onmessage = function (event) {
      var message = JSON.parse(event.data);
      switch (message.type) {
        case "connection_ack":
          send({ type: "subscribe", id: "1", payload: params });
          if (sent) renewal = setInterval(renew, renewalPause);
          break;
        case "ping":
          send({ type: "pong" });
          break;
        case "next":
          results.push(message.payload);
          wake();
          break;
        case "error":
          results.push({ errors: message.payload });
          finish(null);
          break;
        case "complete":
          finish(null);
      }
    };
    socket.onclose = function (event) {
      finish(new Error("The subscription has ended: " + (event.reason || "the connection was lost") + " (" + event.code + "). Run it again to go on."));
    };

    return {
      [Symbol.asyncIterator]: function () { return this; },
      next: async function () {
        while (results.length === 0 && !end) await new Promise(function (resolve) { wake = resolve; });
        if (results.length > 0) return { done: false, value: results.shift() };
        if (end.error) throw end.error;
        return { done: true };
      },
      return: async function () {
        finish(null);
        return { done: true };
      },
    };
  }

  window.backplaneSubscribe = subscribe;
})();
