-- The requests that wrk sends: load.lua KIND PREFIX [TOKENS]; ends with one line of JSON.

local threads = 0

function setup(thread)
	thread:set("thread_number", threads)
	threads = threads + 1
end

local function post(path, body)
	return wrk.format("POST", path, nil, body)
end

-- A mailbox that nobody has asked for before: every request passes all the quotas. It begins with random hexadecimal digits,
-- as the planted ones do, so that it falls on a random place among them.
local function generate(prefix)
	local number = 0
	return function()
		number = number + 1
		return post("/generate-password", string.format('{"email":"%07x-%s-%d-%d@example.com"}', math.random(0, 0xfffffff),
			prefix, thread_number, number))
	end
end

-- A guess that is evaluated and counted, on a token chosen at random.
local function validate(prefix, path)
	local bodies = {}
	for token in io.lines(path) do
		bodies[#bodies + 1] = post("/validate-password", '{"password":"000000","token":"' .. token .. '"}')
	end
	return function()
		return bodies[math.random(#bodies)]
	end
end

local function get(path)
	local text = wrk.format("GET", path)
	return function()
		return text
	end
end

function init(args)
	wrk.headers["Content-Type"] = "application/json"
	math.randomseed(os.time() + 7919 * thread_number)
	if args[1] == "generate" then
		request = generate(args[2])
	elseif args[1] == "validate" then
		request = validate(args[2], args[3])
	else
		request = get(args[2])
	end
end

function done(summary, latency)
	local errors = summary.errors
	io.write(string.format(
		'{"requests":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f,"max_ms":%.3f,"refused":%d,"broken":%d}\n',
		summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
		latency.max / 1e3, errors.status, errors.connect + errors.read + errors.write + errors.timeout))
end
