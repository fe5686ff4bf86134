-- Made by `make docs` from deploy/monitoring/fluent-bit; change it there.
-- Gives every line the fields of our own tiers: time, level, tier, event.
-- Ours come parsed. Triton writes `2026-11-23T05:32:00Z I 8625 server.cc:674] "text"`, and tables and notes besides.
-- Under test in tests/observe/test_fluent_bit.py and tests/deploy/test_logs.py, with the Lua that Fluent Bit has.

local LEVELS = {V = "debug", I = "info", W = "warning", E = "error", F = "critical"}
local TRITON = "^(%d%d%d%d%-%d%d%-%d%dT[%d:%.]+Z) ([VIWEF]) (%d+) ([%w_%.%-]+:%d+)%]%s*(.-)%s*$"

-- Keeps the lines of one project's containers, where Docker says whose a line is (`labels` in compose.yaml), and says which
-- container it was. In a cluster the path has chosen already, and the file's name says pod and container.
function ours(tag, timestamp, record)
  local project = os.getenv("QSM_LOG_PROJECT")
  if project and project ~= "" then
    local labels = record["attrs"]
    if type(labels) ~= "table" or labels["com.docker.compose.project"] ~= project then
      return -1, timestamp, record
    end
    record["container"] = labels["com.docker.compose.service"]
    record["attrs"] = nil
    return 2, timestamp, record
  end
  local pod, container = tag:match("containers%.([^_]+)_[^_]+_(.+)%-%x+%.log$")
  if not pod then
    return 0, timestamp, record
  end
  record["pod"] = pod
  record["container"] = container
  return 2, timestamp, record
end

function normalise(tag, timestamp, record)
  local line = record["log"]
  if type(line) ~= "string" then
    return 0, timestamp, record
  end
  line = line:gsub("%s+$", "")
  if line == "" or line:match("^[%+%-=]+$") then
    return -1, timestamp, record -- frames of tables say nothing
  end
  record["log"] = nil
  local time, level, pid, source, text = line:match(TRITON)
  if time then
    record["time"] = time
    record["level"] = LEVELS[level]
    record["tier"] = "triton"
    record["pid"] = tonumber(pid)
    record["source"] = source
    record["event"] = text:match('^"(.*)"$') or text
  else
    -- Tables and sentences of Triton, of the proxy, of a program that has crashed.
    record["level"] = "info"
    if line:match("WARNING") then
      record["level"] = "warning"
    elseif line:match("^Error") or line:match("^ERROR") or line:match("%f[%a]error:") then
      record["level"] = "error"
    end
    record["tier"] = "other"
    record["event"] = line
  end
  return 2, timestamp, record
end
