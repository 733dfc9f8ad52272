-- wrk's side of the benchmark: wrk ... URL -- MODE DIR
--
-- MODE is get, list, post, ndjson, array, health or missing.  DIR holds
-- `users` (index, id, session, leaf, token) and `ids` (index, record id), made
-- by bench/seed; the peers' folders have the same form.  Requests are built
-- before the clock starts, except the parts that must be new each time: a
-- reading's timestamp, or a batch's source, because an equal reading would be
-- answered as a duplicate and write nothing.  500 people take turns, so no two
-- neighbours of a batch are one person.

local requests, n, at = {}, 0, 0
local mode, seconds, base, run
local heads, lines, tail = {}, {}, ""

local function split(line)
    local t = {}
    for part in line:gmatch("[^\t\n]+") do t[#t + 1] = part end
    return t
end

local function head(method, path, token, extra)
    return method .. " " .. path .. " HTTP/1.1\r\nHost: localhost\r\n"
        .. (token and "Authorization: Bearer " .. token .. "\r\n" or "")
        .. (extra or "") .. "\r\n"
end

local function read_users(dir)
    local users = {}
    for line in io.lines(dir .. "/users") do
        local t = split(line)
        users[#users + 1] = t[5]
    end
    return users
end

-- Round robin over people, and for each over his ids.
local function read_ids(dir, users)
    local of = {}
    for line in io.lines(dir .. "/ids") do
        local t = split(line)
        local u = tonumber(t[1])
        of[u] = of[u] or {}
        table.insert(of[u], t[2])
    end
    for i = 1, 20 do
        for u = 1, #users do
            local id = of[u] and of[u][i]
            if id then
                requests[#requests + 1] =
                    head("GET", "/api/v1/health-data/" .. id, users[u])
            end
        end
    end
end

local function prepare_post(users)
    for u = 1, #users do
        heads[u] = "POST /api/v1/health-data HTTP/1.1\r\n"
            .. "Host: localhost\r\nAuthorization: Bearer " .. users[u]
            .. "\r\nContent-Type: application/json\r\nContent-Length: "
    end
    seconds = {}
    base = os.time() - 3500
    for s = 0, 3400 do
        seconds[s] = os.date("!%Y-%m-%dT%H:%M:%S", base + s)
    end
end

local function prepare_batch(users)
    local kind = mode == "array" and "application/json"
        or "application/x-ndjson"
    for u = 1, #users do
        heads[u] = "POST /api/v1/health-data/batch HTTP/1.1\r\n"
            .. "Host: localhost\r\nAuthorization: Bearer " .. users[u]
            .. "\r\nContent-Type: " .. kind .. "\r\nContent-Length: "
    end
    local now = os.time()
    for i = 1, 500 do
        lines[i] = (mode == "array" and (i == 1 and "[" or ",") or "")
            .. '{"data_type":"heart_rate","value":' .. 60 + i % 40
            .. ',"unit":"/min","timestamp":"'
            .. os.date("!%Y-%m-%dT%H:%M:%S.000Z", now - (500 - i) * 60)
            .. '","source":"'
    end
    tail = '"}' .. (mode == "array" and "" or "\n")
end

function init(args)
    mode, run = args[1], os.time() % 1000000
    math.randomseed(os.time() * 1000 + math.floor(os.clock() * 1e6) % 1000)
    if mode == "health" then
        requests[1] = head("GET", "/health")
    elseif mode == "missing" then
        requests[1] = head("GET", "/nothing/here")
    else
        local users = read_users(args[2])
        if mode == "get" then
            read_ids(args[2], users)
        elseif mode == "list" then
            for u = 1, #users do
                requests[u] = head("GET", "/api/v1/health-data?limit=20",
                                   users[u])
            end
        elseif mode == "post" then
            prepare_post(users)
        else
            prepare_batch(users)
        end
    end
    n = #requests
    at = math.random(0, 100000)
end

local function post()
    local body = '{"data_type":"heart_rate","value":' .. math.random(60, 99)
        .. ',"unit":"/min","timestamp":"' .. seconds[math.random(0, 3400)]
        .. string.format(".%03dZ", math.random(0, 999))
        .. '","notes":"after a short walk"}'
    return heads[at % #heads + 1] .. #body .. "\r\n\r\n" .. body
end

local function batch()
    local parts = {}
    local source = string.format("w%06d-%06d", run, at) .. tail
    for i = 1, #lines do
        parts[2 * i - 1] = lines[i]
        parts[2 * i] = source
    end
    if mode == "array" then parts[#parts + 1] = "]" end
    local body = table.concat(parts)
    return heads[at % #heads + 1] .. #body .. "\r\n\r\n" .. body
end

function request()
    at = at + 1
    if n > 0 then return requests[at % n + 1] end
    if mode == "post" then return post() end
    return batch()
end

function done(summary, latency, _)
    local e = summary.errors
    io.write(string.format('BENCH {"requests":%d,"seconds":%.6f,'
        .. '"p50":%.3f,"p99":%.3f,"p999":%.3f,"max":%.3f,"status":%d,'
        .. '"lost":%d}\n', summary.requests, summary.duration / 1e6,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
        latency:percentile(99.9) / 1e3, latency.max / 1e3, e.status,
        e.connect + e.read + e.write + e.timeout))
end
