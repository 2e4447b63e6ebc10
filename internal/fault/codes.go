package fault

// Code is a stable identifier of an error. Codes are API: they are the values
// of ErrorCode in the schema, and are never renamed. A constant is named after
// its code: USER_NOT_FOUND is UserNotFound.
type Code string

// Codes of any request.
const (
	Internal        Code = "INTERNAL"
	BadInput        Code = "BAD_INPUT"
	Unauthenticated Code = "UNAUTHENTICATED"
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
	CursorUnknown   Code = "CURSOR_UNKNOWN" // of the event log: of another timeline, or beyond the head
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

// Codes of users.
const (
	UserNotFound    Code = "USER_NOT_FOUND"
	UserNotActive   Code = "USER_NOT_ACTIVE"
	UsernameInvalid Code = "USERNAME_INVALID"
	UsernameTaken   Code = "USERNAME_TAKEN"
	EmailInvalid    Code = "EMAIL_INVALID"
	EmailTaken      Code = "EMAIL_TAKEN"
	LastAdmin       Code = "LAST_ADMIN"
)

// Codes of credentials.
const (
	PasswordInvalid     Code = "PASSWORD_INVALID"
	CredentialsWrong    Code = "CREDENTIALS_WRONG"
	RefreshTokenInvalid Code = "REFRESH_TOKEN_INVALID"
	SessionNotFound     Code = "SESSION_NOT_FOUND"
	APIKeyNotFound      Code = "API_KEY_NOT_FOUND"
	ScopeInvalid        Code = "SCOPE_INVALID"
	ExpiryInvalid       Code = "EXPIRY_INVALID"
	LimitReached        Code = "LIMIT_REACHED" // e.g. API keys of one user, connections of one caller
)

// Codes of products and orders.
const (
	ProductNotFound     Code = "PRODUCT_NOT_FOUND"
	ProductNotActive    Code = "PRODUCT_NOT_ACTIVE"
	SKUInvalid          Code = "SKU_INVALID"
	SKUTaken            Code = "SKU_TAKEN"
	CurrencyUnknown     Code = "CURRENCY_UNKNOWN"
	AmountInvalid       Code = "AMOUNT_INVALID"
	StockInsufficient   Code = "STOCK_INSUFFICIENT"
	StockInvalid        Code = "STOCK_INVALID"
	OrderNotFound       Code = "ORDER_NOT_FOUND"
	OrderLinesInvalid   Code = "ORDER_LINES_INVALID"
	QuantityInvalid     Code = "QUANTITY_INVALID"
	CurrencyMixed       Code = "CURRENCY_MIXED"
	TotalTooLarge       Code = "TOTAL_TOO_LARGE"
	OrderNotCancellable Code = "ORDER_NOT_CANCELLABLE"
	OrderNotPayable     Code = "ORDER_NOT_PAYABLE"
	OrderNotShippable   Code = "ORDER_NOT_SHIPPABLE"
	OrderNotDeliverable Code = "ORDER_NOT_DELIVERABLE"
	OrderNotRefundable  Code = "ORDER_NOT_REFUNDABLE"
)

// Codes of the registry and the gateway.
const (
	ServiceNotFound  Code = "SERVICE_NOT_FOUND"
	ServiceInvalid   Code = "SERVICE_INVALID" // its name, tags, metadata or health check
	InstanceNotFound Code = "INSTANCE_NOT_FOUND"
	InstanceInvalid  Code = "INSTANCE_INVALID" // its id, URL, weight, metadata, incarnation or time to live
	StaleIncarnation Code = "STALE_INCARNATION"
	NoInstance       Code = "NO_INSTANCE"
	PickLeaseInvalid Code = "PICK_LEASE_INVALID"
	BadGateway       Code = "BAD_GATEWAY"
	GatewayTimeout   Code = "GATEWAY_TIMEOUT"
)

// Codes of operators' commands.
const (
	DeadLetterNotFound Code = "DEAD_LETTER_NOT_FOUND"
)
