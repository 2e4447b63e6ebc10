'use strict';

// Nothing is asked of other servers: no validator badge, no remote settings.
SwaggerUIBundle({
  url: 'openapi.json',
  dom_id: '#docs',
  deepLinking: true,
  validatorUrl: null,
  queryConfigEnabled: false,
  persistAuthorization: false,
  syntaxHighlight: { activated: false }, // it took most of the time to open an operation, which has a dozen responses
});
