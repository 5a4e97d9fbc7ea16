-- Health check of a WhatsAppCluster for Argo CD, following kstatus: Degraded when a person must act, Healthy when the spec is carried out.
-- Suspended instead of Progressing while the cluster waits because a person paused it or because no maintenance window is open.
-- To install it, see docs/install.md, "Argo CD". It needs no Lua library.

local waits = { Paused = true, WindowClosed = true }

local function health(status, condition, message)
  if condition ~= nil then
    message = (condition.reason or condition.type) .. ": " .. (condition.message or "")
  end
  return { status = status, message = message }
end

if obj.metadata.deletionTimestamp ~= nil then
  return health("Progressing", nil, "The cluster is being deleted.")
end

local status = obj.status or {}
if obj.metadata.generation ~= nil and status.observedGeneration ~= obj.metadata.generation then
  return health("Progressing", nil, "The operator has not observed the newest spec yet.")
end

local ready = nil
for _, condition in ipairs(status.conditions or {}) do
  if condition.type == "Reconciling" and condition.status == "True" then
    return health(waits[condition.reason] and "Suspended" or "Progressing", condition)
  end
  if condition.type == "Stalled" and condition.status == "True" then
    return health("Degraded", condition)
  end
  if condition.type == "Ready" then
    ready = condition
  end
end

if ready ~= nil and ready.status == "True" then
  return health("Healthy", ready)
end
return health("Progressing", ready, "The operator has not reported the cluster yet.")
