# Stages of a test run, timed, and a table of them at the end: sourced by tests/run and .ci/run.
#
#   stage NAME COMMAND...    runs the command, says how it went, returns its status; while `reports_only` is true, a failure
#                            fails nothing
#   skip NAME REASON         notes what was not run
#   in_time LIMIT_S COMMAND  stops a program at its limit; its stage then says `timed out after LIMIT_S s`
#   counted COMMAND...       a `cargo test`, whose counts go into the summary
#   summary                  prints the table; returns 0 only when no stage failed

stage_rows=()
reports_only=false
stage_failures=0
# Seconds of the limit that a program of the current stage has reached.
timed_out_after=
tests_passed=0
tests_failed=0
tests_skipped=0
tests_counted=false

stage() {
    local name=$1 begin=$EPOCHREALTIME status seconds verdict
    shift
    timed_out_after=
    printf '\n== %s\n' "$name"
    "$@"
    status=$?
    seconds=$(seconds_since "$begin")
    if ((status == 0)); then
        verdict=ok
    elif $reports_only; then
        verdict="did not pass ($status); reported alone, because this version is not known"
    elif [[ -n $timed_out_after ]]; then
        verdict="FAILED: timed out after $timed_out_after s"
        stage_failures=$((stage_failures + 1))
    else
        verdict="FAILED ($status)"
        stage_failures=$((stage_failures + 1))
    fi
    stage_rows+=("$(printf '%-32s %8s s  %s' "$name" "$seconds" "$verdict")")
    printf '== %s: %s, %s s\n' "$name" "$verdict" "$seconds"
    return "$status"
}

skip() {
    stage_rows+=("$(printf '%-32s %8s    skipped: %s' "$1" - "$2")")
    printf '\n== %s: skipped: %s\n' "$1" "$2"
}

seconds_since() {
    local begin=$1 now=$EPOCHREALTIME tenths
    # EPOCHREALTIME has six decimals; bash has no fractions.
    tenths=$(((${now/[.,]/} - ${begin/[.,]/} + 50000) / 100000))
    echo "$((tenths / 10)).$((tenths % 10))"
}

# in_time LIMIT_S COMMAND...: a program, no function; it has ten seconds to end by itself.
in_time() {
    local limit_s=$1 status
    shift
    timeout -k 10 "$limit_s" "$@"
    status=$?
    # 124: ended by TERM; 137: by KILL.
    if ((status == 124 || status == 137)); then
        timed_out_after=$limit_s
        echo "timed out after $limit_s s: $*" >&2
    fi
    return "$status"
}

# Passes everything through, and adds up the lines `test result: ok. 3 passed; 0 failed; 1 ignored; …`.
counted() {
    local log status tee_pid passed failed ignored absent
    log=$(mktemp /tmp/rpc-tests-log.XXXXXX) || return 1
    # No `|`: in a subshell `in_time` could not say that the time was up. No `>(…)`: its descriptor would be inherited by a
    # broker that a test restarts, and `tee` would never see the end.
    mkfifo "$log.pipe" || return 1
    tee "$log" <"$log.pipe" &
    tee_pid=$!
    "$@" >"$log.pipe" 2>&1
    status=$?
    wait "$tee_pid"
    rm -f "$log.pipe"
    read -r passed failed ignored < <(
        awk '/^test result: / {
                for (i = 1; i < NF; i++) {
                    if ($(i + 1) ~ /^passed/) passed += $i
                    if ($(i + 1) ~ /^failed/) failed += $i
                    if ($(i + 1) ~ /^ignored/) ignored += $i
                }
            }
            END { print passed + 0, failed + 0, ignored + 0 }' "$log"
    )
    # A case whose broker, Redis, Python or Node is absent passes at once, and has run nothing.
    local needs=()
    [[ -z ${RPC_TEST_RABBITMQ_URL-} ]] && needs+=('::rabbitmq::' '^test rabbitmq_')
    [[ -z ${RPC_TEST_REDIS_SERVER-} ]] && needs+=('^test once::redis::')
    [[ -z ${RPC_TEST_PYTHON-} ]] && needs+=('^test pika::')
    [[ -z ${RPC_TEST_NODE_PATH-} ]] && needs+=('^test amqplib::')
    absent=0
    if ((${#needs[@]} > 0)); then
        absent=$(grep -E "$(IFS='|' && echo "${needs[*]}")" "$log" | grep -cE '^test .* ok$')
    fi
    tests_counted=true
    tests_passed=$((tests_passed + passed - absent))
    tests_failed=$((tests_failed + failed))
    tests_skipped=$((tests_skipped + ignored + absent))
    if ((status == 0 && passed == 0)); then
        echo "no test ran" >&2
        status=1
    fi
    rm -f "$log"
    return "$status"
}

summary() {
    printf '\n== summary\n'
    printf '%s\n' "${stage_rows[@]}"
    if ((tests_skipped > 0)); then
        printf 'skipped tests: %d whose broker, Redis, Python or Node is not there, or that are marked #[ignore]\n' "$tests_skipped"
    fi
    if $tests_counted; then
        printf '%d passed, %d failed, %d skipped\n' "$tests_passed" "$tests_failed" "$tests_skipped"
    fi
    if ((stage_failures > 0)); then
        printf 'FAILED: %d of %d stages\n' "$stage_failures" "${#stage_rows[@]}"
        return 1
    fi
}
