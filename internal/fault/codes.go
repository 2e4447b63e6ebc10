package fault

// Code is a stable identifier of an error. Codes are API: they are the values
// of ErrorCode in the schema, and are never renamed. A constant is named after
// its code: USER_NOT_FOUND is UserNotFound, in a domain SKU_TAKEN is CodeSKUTaken.
type Code string

// Codes of any request.
const (
	Internal        Code = "INTERNAL"
	BadInput        Code = "BAD_INPUT"
	Unauthenticated Code = "UNAUTHENTICATED"
	TokenExpired    Code = "TOKEN_EXPIRED"
	Forbidden       Code = "FORBIDDEN"
	RateLimited     Code = "RATE_LIMITED"
	Unavailable     Code = "UNAVAILABLE"
	ServerBusy      Code = "SERVER_BUSY"
	Timeout         Code = "TIMEOUT"
	Cancelled       Code = "CANCELLED"
)

// Codes of the HTTP request and of its document: its form, and the limits on it.
const (
	BadRequest                 Code = "BAD_REQUEST"
	NotFound                   Code = "NOT_FOUND"
	GraphQLParseFailed         Code = "GRAPHQL_PARSE_FAILED"
	GraphQLValidationFailed    Code = "GRAPHQL_VALIDATION_FAILED"
	OperationResolutionFailure Code = "OPERATION_RESOLUTION_FAILURE"
	PersistedQueryNotFound     Code = "PERSISTED_QUERY_NOT_FOUND"
	PersistedQueryMismatch     Code = "PERSISTED_QUERY_MISMATCH"
	IntrospectionDisabled      Code = "INTROSPECTION_DISABLED"
	BodyTooLarge               Code = "BODY_TOO_LARGE"
	HeaderTooLarge             Code = "HEADER_TOO_LARGE"
	TooManyTokens              Code = "TOO_MANY_TOKENS"
	TooManyFields              Code = "TOO_MANY_FIELDS"
	TooManyFragments           Code = "TOO_MANY_FRAGMENTS"
	FragmentsTooDeep           Code = "FRAGMENTS_TOO_DEEP"
	TooDeep                    Code = "TOO_DEEP"
	TooManyAliases             Code = "TOO_MANY_ALIASES"
	TooManyRootFields          Code = "TOO_MANY_ROOT_FIELDS"
	TooManyDirectives          Code = "TOO_MANY_DIRECTIVES"
	TooManyOperations          Code = "TOO_MANY_OPERATIONS"
	TooComplex                 Code = "TOO_COMPLEX"
	TooManyErrors              Code = "TOO_MANY_ERRORS"
	ResponseTooLarge           Code = "RESPONSE_TOO_LARGE"
)

// Codes of lists and versions.
const (
	PageSizeInvalid Code = "PAGE_SIZE_INVALID"
	CursorInvalid   Code = "CURSOR_INVALID"
	CursorUnknown   Code = "CURSOR_UNKNOWN" // of the event log: forged, of another timeline, or beyond the head
	CursorExpired   Code = "CURSOR_EXPIRED" // of the event log: older than retention
	VersionConflict Code = "VERSION_CONFLICT"
	LegacyIDInvalid Code = "LEGACY_ID_INVALID"
	LegacyIDTaken   Code = "LEGACY_ID_TAKEN"
)

// Codes of idempotent calls.
const (
	IdempotencyKeyInvalid Code = "IDEMPOTENCY_KEY_INVALID"
	IdempotencyKeyReused  Code = "IDEMPOTENCY_KEY_REUSED" // same key, another call
	IdempotencyInFlight   Code = "IDEMPOTENCY_IN_FLIGHT"  // the first call has not ended
)

// Codes with which several packages answer. A domain declares the others beside its
// entities.
const (
	UserNotFound     Code = "USER_NOT_FOUND"
	UserNotActive    Code = "USER_NOT_ACTIVE"
	PasswordInvalid  Code = "PASSWORD_INVALID"
	CredentialsWrong Code = "CREDENTIALS_WRONG"
	LimitReached     Code = "LIMIT_REACHED" // e.g. API keys of one user, connections of one caller
	CurrencyUnknown  Code = "CURRENCY_UNKNOWN"
	AmountInvalid    Code = "AMOUNT_INVALID"
	BadGateway       Code = "BAD_GATEWAY"
	GatewayTimeout   Code = "GATEWAY_TIMEOUT"
)
