// Signs in against this server and keeps the access token fresh. The session is kept for as long as the
// browser's tab lives, so that it survives a reload and does not outlive the tab.
(function () {
  "use strict";
  var key = "backplane:session";
  var early = 30e3; // milliseconds before its end that a token is renewed
  var fields = "session { accessToken refreshToken expiresAt } userErrors { message }";
  var session = JSON.parse(sessionStorage.getItem(key) || "null");
  var renewal = null; // the request that is under way

  function byId(id) { return document.getElementById(id); }

  function save(next) {
    session = next;
    if (next) sessionStorage.setItem(key, JSON.stringify(next));
    else sessionStorage.removeItem(key);
    show("");
  }

  function show(error) {
    byId("sign-in").hidden = !!session;
    byId("sign-out").hidden = !session;
    byId("account-name").textContent = session ? session.login : "";
    byId("account-error").textContent = error;
  }

  // call returns the payload of the operation's one field; it throws an Error with the server's reason.
  async function call(field, query, variables, headers) {
    var response = await fetch(new URL("graphql", document.baseURI), {
      method: "POST",
      headers: Object.assign({ "Content-Type": "application/json" }, headers),
      body: JSON.stringify({ query: query, variables: variables }),
    });
    var answer = await response.json();
    var payload = answer.data && answer.data[field];
    var errors = (answer.errors || []).concat((payload && payload.userErrors) || []);
    if (errors.length > 0) throw new Error(errors.map(function (e) { return e.message; }).join(" "));
    return payload;
  }

  async function signIn(login, password) {
    var query = "mutation ($input: SignInInput!) { signIn(input: $input) { " + fields + " } }";
    var payload = await call("signIn", query, { input: { login: login, password: password } });
    save(Object.assign({ login: login }, payload.session));
  }

  // renew replaces the tokens. A refresh token is good for one exchange, so all callers wait for one.
  async function renew() {
    var login = session.login;
    var query = "mutation ($input: RefreshSessionInput!) { refreshSession(input: $input) { " + fields + " } }";
    try {
      var payload = await call("refreshSession", query, { input: { refreshToken: session.refreshToken } });
      save(Object.assign({ login: login }, payload.session));
    } catch (e) {
      if (e instanceof TypeError) throw e; // the server was not reached: the session may live on
      save(null);
      show("The session has ended: " + e.message);
    }
  }

  // authorization returns the headers of a request of the account, none without one.
  async function authorization() {
    if (session && Date.parse(session.expiresAt) - Date.now() < early) {
      renewal = renewal || renew().finally(function () { renewal = null; });
      await renewal;
    }
    return session ? { Authorization: "Bearer " + session.accessToken } : {};
  }

  // onSubmit runs the action of a form, and shows why it failed.
  function onSubmit(id, action) {
    byId(id).addEventListener("submit", function (event) {
      event.preventDefault();
      var form = event.target;
      action(form).then(function () { form.reset(); }, function (e) { show(e.message); });
    });
  }

  onSubmit("sign-in", function (form) { return signIn(form.login.value.trim(), form.password.value); });
  onSubmit("sign-out", async function () {
    try {
      await call("signOut", "mutation { signOut { userErrors { message } } }", {}, await authorization());
    } finally {
      save(null);
    }
  });
  show("");
  window.backplaneAccount = { authorization: authorization };
})();
