# Faults of a cluster under a load: sourced by tests/run, after cluster.bash, whose cluster_start comes first.
#
#   cluster_client_loses_leader PROGRAM TRANSPORTS
#                           kills the node that leads the queues and that the clients are connected to, and starts it
#                           40 s later, under the loads of that test_load, one of each transport ("native lapin")
#   cluster_client_loses_leaders COUNT PROGRAM TRANSPORTS
#                           the same so many times, and a line that adds them up
# By hand, for the figures in the guide:
#   cluster_leader_hangs PROGRAM TRANSPORTS
#                           freezes that node for 90 s (SIGSTOP)
#   cluster_rolls PROGRAM TRANSPORTS
#                           stops and starts each of the three nodes, one after the other

CLUSTER_AWAY_S=40
CLUSTER_LOAD_S=60
CLUSTER_HANGS_S=90
# With heartbeats of 2 s a connection to a frozen node is lost after 4 s.
CLUSTER_HEARTBEAT_S=2
# Requests answered before the fault: 40 are made in a second.
CLUSTER_LOAD_MIN=120
cluster_last_leader=0

# cluster_urls TRANSPORT NODE...: their URIs, in that order. Each transport has a vhost of its own.
cluster_urls() {
    local transport=$1 node urls=()
    shift
    for node in "$@"; do
        urls+=("amqp://guest:guest@127.0.0.1:${cluster_amqp_ports[node]}/$transport?transport=$transport&heartbeat=$CLUSTER_HEARTBEAT_S")
    done
    (IFS=, && echo "${urls[*]}")
}

# cluster_load_start PROGRAM TRANSPORTS SECONDS FIRST SECOND THIRD: the clients prefer the first node, the workers the second one.
cluster_load_start() {
    local program=$1 transports=$2 seconds=$3 transport urls=()
    shift 3
    for transport in $transports; do
        urls+=("$(cluster_urls "$transport" "$@")" "$(cluster_urls "$transport" "$2" "$3")")
    done
    rm -f "$cluster_home"/load.* && mkfifo "$cluster_home/load.in" || return 1
    timeout -k 5 $((seconds + 90)) "$program" "$seconds" "${urls[@]}" \
        <"$cluster_home/load.in" >"$cluster_home/load.out" 2>"$cluster_home/load.err" &
    cluster_load_pid=$!
    # Open until the load has ended.
    exec {cluster_load_in}>"$cluster_home/load.in"
    cluster_load_reaches "$CLUSTER_LOAD_MIN" 60
}

# cluster_load_felt: tells the load that the fault is there.
cluster_load_felt() {
    echo killed >&"$cluster_load_in"
}

# Waits for the end of the load, and prints its report; its status is the load's.
cluster_load_end() {
    local status
    wait "$cluster_load_pid"
    status=$?
    cluster_load_pid=
    exec {cluster_load_in}>&-
    grep -v '^answered ' "$cluster_home/load.out"
    if ((status != 0)); then
        echo "the load exited with $status:" >&2
        tail -n 5 "$cluster_home/load.err" >&2
    fi
    return "$status"
}

# cluster_load_on_leader PROGRAM TRANSPORTS SECONDS: sets leader, which leads the queues of all of them, second and third.
cluster_load_on_leader() {
    local transport
    # Each node in its turn.
    leader=$((cluster_last_leader % 3 + 1))
    second=$((leader % 3 + 1))
    third=$((6 - leader - second))
    cluster_last_leader=$leader
    for transport in $2; do
        cluster_empty_vhost "$transport" || return 1
    done
    # The queues are declared over that node, which leads them then.
    cluster_load_start "$@" "$leader" "$second" "$third" || return 1
    for transport in $2; do
        [[ $(cluster_leader rpc.load "$second" "$transport") == "$leader" ]] || {
            echo "node $leader does not lead the queue of $transport" >&2
            return 1
        }
    done
}

# cluster_empty_vhost NAME: there is one, and nothing in it.
cluster_empty_vhost() {
    if cluster_ctl 1 list_vhosts --no-table-headers name | grep -qx "$1"; then
        cluster_ctl 1 delete_vhost "$1" || return 1
    fi
    cluster_ctl 1 add_vhost "$1" && cluster_ctl 1 set_permissions -p "$1" guest '.*' '.*' '.*'
}

# cluster_say_leaders TRANSPORTS
cluster_say_leaders() {
    local transport
    for transport in $1; do
        echo "node $(cluster_leader rpc.load "$second" "$transport") leads the queue of $transport now"
    done
}

cluster_client_loses_leader() {
    local leader second third status
    cluster_load_on_leader "$1" "$2" "$CLUSTER_LOAD_S" || return 1
    kill -KILL -- "-${cluster_groups[leader]}"
    cluster_load_felt
    echo "node $leader, which led the queues and had the clients, was killed"
    sleep "$CLUSTER_AWAY_S"
    cluster_say_leaders "$2"
    echo "node $leader starts after $CLUSTER_AWAY_S s"
    cluster_start_node "$leader"
    cluster_load_end
    status=$?
    cluster_node_answers "$leader" && cluster_ctl "$second" await_online_nodes 3 || return 1
    return "$status"
}

cluster_client_loses_leaders() {
    local count=$1 nth failures=0
    shift
    for ((nth = 1; nth <= count; nth++)); do
        echo "-- kill $nth of $count"
        cluster_client_loses_leader "$@" || failures=$((failures + 1))
    done
    echo "$count kills, $failures with losses"
    ((failures == 0))
}

cluster_leader_hangs() {
    local leader second third
    cluster_load_on_leader "$1" "$2" $((CLUSTER_HANGS_S + 30)) || return 1
    kill -STOP -- "-${cluster_groups[leader]}"
    cluster_load_felt
    echo "node $leader, which led the queues and had the clients, was frozen"
    sleep "$CLUSTER_HANGS_S"
    kill -CONT -- "-${cluster_groups[leader]}"
    echo "node $leader goes on after $CLUSTER_HANGS_S s"
    cluster_load_end
}

cluster_rolls() {
    local leader second third node status=0
    cluster_load_on_leader "$1" "$2" 120 || return 1
    cluster_load_felt
    for node in "$leader" "$second" "$third"; do
        cluster_ctl "$node" stop_app && cluster_ctl "$node" start_app || status=1
        echo "node $node was stopped and started"
        sleep 5
    done
    cluster_load_end && return "$status"
}
