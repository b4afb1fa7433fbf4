-- http-request lua.breaker URL: asks the sidecar and sets two variables of the transaction.
-- txn.breaker       "admit", "reject", or "silent" where no sidecar answered
-- txn.breaker_wait  seconds after which to come back, where it is not "admit"

local WAIT_WHERE_SILENT = "5"

core.register_action("breaker", { "http-req" }, function(txn, url)
    local answer = core.httpclient():head({ url = url })
    local status = answer and answer.status or 0
    local headers = answer and answer.headers or {}
    local wait = headers["retry-after"]
    -- HAProxy itself answers 5xx for a server that doesn't; only the sidecar says X-Breaker.
    if not headers["x-breaker"] and (status == 0 or status >= 500) then
        txn:set_var("txn.breaker", "silent")
    else
        -- Anything but 200 is a no: a mistake in the URL (404) must not look like an admission.
        txn:set_var("txn.breaker", status == 200 and "admit" or "reject")
    end
    txn:set_var("txn.breaker_wait", wait and wait[0] or WAIT_WHERE_SILENT)
end, 1)
