-- Gives every line the fields of our own tiers: time, level, tier, event.
-- Ours come parsed. Triton writes `2026-11-23T05:32:00Z I 8625 server.cc:674] "text"`, and tables and notes besides.
-- Under test in tests/observe/test_fluent_bit.py, with the Lua that Fluent Bit has.

local LEVELS = {V = "debug", I = "info", W = "warning", E = "error", F = "critical"}
local TRITON = "^(%d%d%d%d%-%d%d%-%d%dT[%d:%.]+Z) ([VIWEF]) (%d+) ([%w_%.%-]+:%d+)%]%s*(.-)%s*$"

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
