#!/usr/bin/env bash
# Asks before every line it would send. BREAKER_DEFAULT (admit or reject) holds if nobody answers.
address=${BREAKER_SIDECAR_ADDRESS:-localhost:9100}
trap '' PIPE # a connection that the sidecar closed is an error like any other

open() { { exec 3<>"/dev/tcp/${address%:*}/${address##*:}"; } 2>/dev/null; }
ask() { # one HEAD on the kept connection; sets status, after and, if a sidecar answers, breaker
    local name value
    breaker='' status='' after=''
    { printf 'HEAD /allowed/%s HTTP/1.1\r\nHost: localhost\r\n\r\n' "${BREAKER:-default}" >&3; } 2>/dev/null &&
        read -r -t 0.25 -u 3 _ status _ || return
    while IFS=: read -r -t 0.25 -u 3 name value; do
        case ${name,,} in
        x-breaker) breaker=${value//[[:space:]]/} ;;
        retry-after) after=${value//[[:space:]]/} ;;
        $'\r') return 0 ;; # the end of the head, and HEAD has no body
        esac
    done
    return 1
}
while read -r _message; do # what was closed or late is opened anew, once
    ask || { open && ask; } || { breaker='' && exec 3>&-; }
    if [[ ! $breaker ]]; then echo "${BREAKER_DEFAULT:-admit} no-answer"; elif ((status == 200)); then echo admit; else echo "reject $after"; fi
done
