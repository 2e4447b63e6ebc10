package cache

import "github.com/redis/go-redis/v9"

// Keys of Redis begin with the format and the timeline. The hash "meta" has the
// generation g and the place p: whatever stands under the generation is at least
// as new as the log says up to that place. Under
//
//	bp1:<timeline>:<generation>:<entity>:<id>
//
// stands one of
//
//	v<version>:<checksum><JSON>   a value
//	l<version>:<token>            a lease: whoever holds the token may fill
//	t<version>:                   a tombstone of a fill that must not happen
//
// where the version of a lease or tombstone is one below which nothing may be
// filled. Anything else is no value, and goes with the next fill or change.
const (
	keyFormat = "bp1:"
	metaKey   = "meta"
)

// getScript returns generation, place and what stands under the keys: values as
// they are, else a lease. A lease that somebody holds is shared: it was planted
// before either of them reads, and stands only while nothing has changed. It
// returns generation and place alone if the generation is another one.
//
//	KEYS meta, key…   ARGV generation, token, life of a lease in ms
var getScript = redis.NewScript(`
local meta = redis.call('HMGET', KEYS[1], 'g', 'p')
local out = {meta[1] or '', meta[2] or ''}
if meta[1] ~= ARGV[1] then return out end
for i = 2, #KEYS do
	local v = redis.pcall('GET', KEYS[i])
	local kind = type(v) == 'string' and string.match(v, '^([vlt])%d+:')
	if kind ~= 'v' and kind ~= 'l' then
		v = 'l' .. (kind and string.match(v, '^t(%d+)') or '0') .. ':' .. ARGV[2]
		redis.call('SET', KEYS[i], v, 'PX', ARGV[3])
	end
	out[i + 1] = v
end
return out`)

// fillScript stores values whose lease still stands, or that are newer than the
// value that stands there, and returns how many it refused.
//
//	KEYS meta, key…   ARGV generation, then for each key lease, version, value, life in ms
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
	end
end
return refused`)

// applyScript tells Redis of changes that the log names behind one place and up
// to another: older values and all leases become tombstones. It does nothing if
// Redis has heard of them, or not of those before. It returns generation and
// place as they are then. The place comes last: a script that Redis ends half-way
// has said nothing.
//
//	KEYS meta, key…   ARGV generation, from, to, life of a tombstone in ms, then a version for each key
var applyScript = redis.NewScript(`
local meta = redis.call('HMGET', KEYS[1], 'g', 'p')
local place = tonumber(meta[2] or '')
if meta[1] ~= ARGV[1] or not place or place < tonumber(ARGV[2]) or place >= tonumber(ARGV[3]) then return {meta[1] or '', meta[2] or ''} end
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

// renewScript begins a generation in which nothing is held yet, unless somebody
// else has done so. It returns generation and place as they are then.
//
//	KEYS meta   ARGV expected generation or '', new generation, place
var renewScript = redis.NewScript(`
local meta = redis.call('HMGET', KEYS[1], 'g', 'p')
if (meta[1] or '') ~= ARGV[1] then return {meta[1] or '', meta[2] or ''} end
redis.call('HSET', KEYS[1], 'g', ARGV[2], 'p', ARGV[3])
return {ARGV[2], ARGV[3]}`)
