#!/bin/sh
# Push an image to a line through the gateway with curl, and print the bin. A busy or paused line is asked again.
#
#   pigeonhole up --gateway
#   GATEWAY_TOKEN=... examples/push_over_http.sh postcards item.jpg 000017
#
# The item is percent-encoded where it is more than letters, digits and "._-": caf%C3%A9.
# Without a token file the gateway needs no GATEWAY_TOKEN. GATEWAY_URL: http://127.0.0.1:8080 unless set.
set -eu

line=$1 image=$2 item=$3
url=${GATEWAY_URL:-http://127.0.0.1:8080}

# The token goes through standard input: other users of the machine can read arguments.
# --retry also waits for Retry-After; the same item pushed again gets the same answer.
printf 'header = "Authorization: Bearer %s"\n' "${GATEWAY_TOKEN:-}" |
    curl --silent --show-error --fail-with-body --config - --retry 5 --header 'Expect:' \
        --header "Pigeonhole-Item: $item" --data-binary "@$image" --header 'Content-Type: application/octet-stream' \
        "$url/v1/lines/$line/items?wait"
echo
