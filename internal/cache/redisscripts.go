package cache

import "github.com/redis/go-redis/v9"

// Keys of Redis begin with the format and the timeline. The hash "meta" holds the generation g and the
// offset p: every value of the generation is at least as new as the log up to that position. A key
//
//	bp2:<timeline>:<generation>:<entity>:<id>
//
// holds one of
//
//	v<version>:<time>:<MAC><JSON>   a value, and when it was filled, in Unix ms
//	l<version>:<token>              a fill token: a reader with this text may fill
//	t<version>:                     a tombstone: a fill token was invalidated
//
// where no value below the version of a fill token or tombstone may be filled. Any other text counts as
// no value, as does a value with a wrong MAC, or one older than the reader's TTL; the next fill or change
// replaces it. Scripts do not know the key of the MAC: what they take from a text decides only what is
// replaced, never what a reader accepts.
const (
	keyFormat = "bp2:"
	metaKey   = "meta"
)

// readScript returns generation, offset and the texts of the keys: values as they are, else a fill token.
// Readers share a fill token that stands already: it was set before any of them reads, and stands only
// while nothing has changed. One that would outlive its reader was not set by this script and is replaced.
// It returns generation and offset alone if the generation is another one.
//
//	KEYS meta, key…   ARGV generation, token, life of a fill token in ms
var readScript = redis.NewScript(`
local meta = redis.call('HMGET', KEYS[1], 'g', 'p')
local out = {meta[1] or '', meta[2] or ''}
if meta[1] ~= ARGV[1] then return out end
for i = 2, #KEYS do
	local v = redis.pcall('GET', KEYS[i])
	local kind = type(v) == 'string' and string.match(v, '^([vlt])%d+:')
	if kind == 'l' then
		local left = redis.call('PTTL', KEYS[i])
		if left < 0 or left > tonumber(ARGV[3]) then kind = nil end
	end
	if kind ~= 'v' and kind ~= 'l' then
		v = 'l' .. (kind and string.match(v, '^t(%d+)') or '0') .. ':' .. ARGV[2]
		redis.call('SET', KEYS[i], v, 'PX', ARGV[3])
	end
	out[i + 1] = v
end
return out`)

// fillScript stores values whose fill token still stands, or that are newer than the value in the key.
// It returns how many it refused. A value that the reader has refused, of a version that cannot be filled,
// is removed.
//
//	KEYS meta, key…   ARGV generation, then for each key fill token, version, value, life in ms
var fillScript = redis.NewScript(`
local refused = 0
if redis.call('HGET', KEYS[1], 'g') ~= ARGV[1] then return #KEYS - 1 end
for i = 2, #KEYS do
	local a = 4 * i - 6
	local v = redis.pcall('GET', KEYS[i])
	local kind, version = string.match(type(v) == 'string' and v or '', '^([vlt])(%d+):')
	if kind and v == ARGV[a] and tonumber(version) <= tonumber(ARGV[a + 1]) or kind == 'v' and tonumber(version) < tonumber(ARGV[a + 1]) then
		redis.call('SET', KEYS[i], ARGV[a + 2], 'PX', ARGV[a + 3])
	else
		refused = refused + 1
		if kind == 'v' and v == ARGV[a] then redis.call('DEL', KEYS[i]) end
	end
end
return refused`)

// applyScript applies the changes that the log names after one position and up to another: older values
// and all fill tokens become tombstones. It does nothing if Redis has them already, or lacks those
// before. It returns generation and offset as they are then. It sets the offset last: a script that
// Redis aborts half-way has not advanced it.
//
//	KEYS meta, key…   ARGV generation, from, to, life of a tombstone in ms, then a version for each key
var applyScript = redis.NewScript(`
local meta = redis.call('HMGET', KEYS[1], 'g', 'p')
local offset = tonumber(meta[2] or '')
if meta[1] ~= ARGV[1] or not offset or offset < tonumber(ARGV[2]) or offset >= tonumber(ARGV[3]) then return {meta[1] or '', meta[2] or ''} end
for i = 2, #KEYS do
	local v = redis.pcall('GET', KEYS[i])
	if v then
		local kind, version = string.match(type(v) == 'string' and v or '', '^([vlt])(%d+):')
		local touched = ARGV[i + 3]
		if kind ~= 'v' or tonumber(version) < tonumber(touched) then
			if kind and tonumber(version) > tonumber(touched) then touched = version end
			redis.call('SET', KEYS[i], 't' .. touched .. ':', 'PX', ARGV[4])
		end
	end
end
redis.call('HSET', KEYS[1], 'p', ARGV[3])
return {meta[1], ARGV[3]}`)

// renewScript begins a generation, which holds no values yet, unless another node has done so. It returns
// generation and offset as they are then.
//
//	KEYS meta   ARGV expected generation or '', new generation, offset
var renewScript = redis.NewScript(`
local meta = redis.call('HMGET', KEYS[1], 'g', 'p')
if (meta[1] or '') ~= ARGV[1] then return {meta[1] or '', meta[2] or ''} end
redis.call('HSET', KEYS[1], 'g', ARGV[2], 'p', ARGV[3])
return {ARGV[2], ARGV[3]}`)
