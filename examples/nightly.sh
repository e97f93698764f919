#!/bin/sh
# Classify what arrived during the day, as a cron job:
#
#     15 1 * * *  /path/to/examples/nightly.sh /srv/inbox birds@champion /srv/manifests
#
# One manifest per day. Started twice on one day, it follows the first run's job and publishes nothing twice.
set -eu
inbox=$1 model=$2 manifests=$3
day=$(date +%F)

status=0
pigeonhole classify "$inbox" --model "$model" -o "$manifests/$day.csv" \
    --idempotency-key "nightly-$day" --max-failures 5% || status=$?

case $status in
    0) pigeonhole results verify "$manifests/$day.csv" ;;
    3) echo "more than 5 % of the images failed; see pigeonhole jobs" >&2 ;;
    69) echo "no server or worker; see pigeonhole doctor" >&2 ;;
    *) echo "failed with exit code $status" >&2 ;;
esac
exit "$status"
