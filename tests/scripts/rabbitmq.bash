# A private RabbitMQ node: sourced by tests/run and tests/with-rabbitmq.
#
# The node lives in a temporary directory, listens on loopback only, on ports nobody else holds, under an epmd of its
# own. Other nodes of this machine, the system's included, are neither used nor touched.
#
#   rabbitmq_program        prints the server's path, or fails when it is not installed
#   rabbitmq_install        installs it from Debian's packages
#   rabbitmq_start          sets RABBITMQ_URL, and RABBITMQ_CTL: a program that is rabbitmqctl for this node, and knows
#                           two commands more: `kill_node` (SIGKILL) and `start_node`
#   rabbitmq_stop           stops what rabbitmq_start started; safe to call twice

RABBITMQ_URL=
RABBITMQ_CTL=
rabbitmq_home=
rabbitmq_epmd_pid=
rabbitmq_locks=()

# The users, vhosts and permissions it starts with; guest is among them.
rabbitmq_scripts=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
rabbitmq_definitions=$(cd "$(dirname "${BASH_SOURCE[0]}")/../parity" && pwd)/definitions.json

# How long the node may take to answer. 4 s on an idle machine with 2 cores, 15 s while a build runs beside it.
RABBITMQ_START_LIMIT_S=90
RABBITMQ_STOP_LIMIT_S=10

rabbitmq_program() {
    # The wrapper in /usr/sbin insists on the user `rabbitmq` and the system's directories; this one does not.
    local program
    for program in /usr/lib/rabbitmq/bin/rabbitmq-server /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin/rabbitmq-server; do
        if [[ -x $program ]]; then
            echo "$program"
            return 0
        fi
    done
    return 1
}

# apt_install PACKAGE...
apt_install() {
    if [[ $(id -u) != 0 ]]; then
        echo "missing Debian packages: $*; run 'sudo apt-get install --no-install-recommends $*'," \
            "run this as root, or skip them with --embedded-only" >&2
        return 1
    fi
    if ! command -v apt-get >/dev/null; then
        echo "missing packages: $*; this is not Debian: install them by hand, or skip them with --embedded-only" >&2
        return 1
    fi
    local apt=(timeout -k 10 600 apt-get -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 -q)
    # A policy-rc.d that denies the start of the system's own node is fine: it is not used.
    DEBIAN_FRONTEND=noninteractive "${apt[@]}" update &&
        DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends "$@"
}

rabbitmq_install() {
    rabbitmq_program >/dev/null || apt_install rabbitmq-server
}

# Sets `port` to a free one, and holds a lock on it so that a second run on this machine takes another.
rabbitmq_take_port() {
    local attempt lock
    for attempt in {1..200}; do
        # Below Linux' ephemeral range, so that no outgoing connection takes it meanwhile.
        port=$((20000 + RANDOM % 12000))
        exec {lock}>"/tmp/rpc-tests.port-$port.lock" || continue
        if flock -n "$lock" && ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            rabbitmq_locks+=("$lock:$port")
            return 0
        fi
        exec {lock}>&-
    done
    echo "no free port among 200 tries" >&2
    return 1
}

rabbitmq_start() {
    local attempt
    for attempt in 1 2 3; do
        if rabbitmq_start_once; then
            return 0
        fi
        rabbitmq_stop
    done
    return 1
}

rabbitmq_start_once() {
    local program port amqp_port dist_port epmd_port
    program=$(rabbitmq_program) || {
        echo "rabbitmq-server is not installed" >&2
        return 1
    }
    rabbitmq_take_port || return 1
    amqp_port=$port
    rabbitmq_take_port || return 1
    dist_port=$port
    rabbitmq_take_port || return 1
    epmd_port=$port
    rabbitmq_home=$(mktemp -d /tmp/rpc-tests-rabbitmq.XXXXXX) || return 1
    printf '[].\n' >"$rabbitmq_home/plugins"
    cat >"$rabbitmq_home/rabbitmq.conf" <<-CONF
		listeners.tcp.1 = 127.0.0.1:$amqp_port
		log.console = false
		log.file.level = warning
		load_definitions = $rabbitmq_definitions
	CONF

    ERL_EPMD_ADDRESS=127.0.0.1 setsid epmd -port "$epmd_port" </dev/null >"$rabbitmq_home/epmd.log" 2>&1 &
    rabbitmq_epmd_pid=$!
    # setsid: a Ctrl-C in the terminal reaches the script that sourced this one, which then stops the node in order.
    cat >"$rabbitmq_home/start" <<-START
		#!/bin/bash
		setsid env -u RABBITMQ_CONFIG_FILES -u RABBITMQ_ADVANCED_CONFIG_FILE \\
		    HOME='$rabbitmq_home' \\
		    ERL_EPMD_PORT=$epmd_port \\
		    ERL_EPMD_ADDRESS=127.0.0.1 \\
		    RABBITMQ_CONF_ENV_FILE=/dev/null \\
		    RABBITMQ_CONFIG_FILE='$rabbitmq_home/rabbitmq.conf' \\
		    RABBITMQ_ENABLED_PLUGINS_FILE='$rabbitmq_home/plugins' \\
		    RABBITMQ_MNESIA_BASE='$rabbitmq_home/mnesia' \\
		    RABBITMQ_LOG_BASE='$rabbitmq_home/log' \\
		    RABBITMQ_PID_FILE='$rabbitmq_home/pid' \\
		    RABBITMQ_NODENAME=rpc-tests-$amqp_port@localhost \\
		    RABBITMQ_DIST_PORT=$dist_port \\
		    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS='-kernel inet_dist_use_interface {127,0,0,1}' \\
		    '$program' </dev/null >'$rabbitmq_home/console.log' 2>&1 &
		echo \$! >'$rabbitmq_home/group'
	START
    chmod +x "$rabbitmq_home/start"
    "$rabbitmq_home/start"

    local deadline=$((SECONDS + RABBITMQ_START_LIMIT_S))
    until rabbitmq_answers "$amqp_port"; do
        if ! kill -0 "$(<"$rabbitmq_home/group")" 2>/dev/null; then
            echo "RabbitMQ ended while starting; its last words:" >&2
            rabbitmq_last_words
            return 1
        fi
        if ((SECONDS >= deadline)); then
            echo "RabbitMQ does not answer on port $amqp_port after $RABBITMQ_START_LIMIT_S s; its last words:" >&2
            rabbitmq_last_words
            return 1
        fi
        sleep 0.2
    done
    rabbitmq_write_ctl "$rabbitmq_home/rabbitmqctl" "$rabbitmq_home" "$epmd_port" "rpc-tests-$amqp_port@localhost"
    cat >"$rabbitmq_home/ctl" <<-CTL
		#!/bin/bash
		source '$rabbitmq_scripts/rabbitmq.bash'
		case \$1 in
		kill_node)
		    group=\$(<'$rabbitmq_home/group')
		    kill -KILL -- "-\$group"
		    while kill -0 -- "-\$group" 2>/dev/null; do sleep 0.05; done
		    ;;
		start_node)
		    '$rabbitmq_home/start'
		    until rabbitmq_answers $amqp_port; do
		        kill -0 "\$(<'$rabbitmq_home/group')" || exit 1
		        sleep 0.2
		    done
		    ;;
		*) exec '$rabbitmq_home/rabbitmqctl' "\$@" ;;
		esac
	CTL
    chmod +x "$rabbitmq_home/ctl"
    RABBITMQ_URL="amqp://guest:guest@127.0.0.1:$amqp_port"
    RABBITMQ_CTL=$rabbitmq_home/ctl
}

# rabbitmq_write_ctl FILE HOME EPMD_PORT NODE: rabbitmqctl with the environment of one node.
rabbitmq_write_ctl() {
    local program
    program=$(rabbitmq_program) || return 1
    cat >"$1" <<-CTL
		#!/bin/sh
		HOME='$2' ERL_EPMD_PORT=$3 RABBITMQ_CONF_ENV_FILE=/dev/null \\
		    exec '$(dirname "$program")/rabbitmqctl' --node '$4' "\$@"
	CTL
    chmod +x "$1"
}

# A broker that is ready answers the protocol header with connection.start, a method frame (type 1).
rabbitmq_answers() {
    timeout 5 bash -c '
        exec 3<>"/dev/tcp/127.0.0.1/$1" || exit 1
        printf "AMQP\0\0\11\1" >&3
        [[ $(head -c 1 <&3 | od -An -tu1) -eq 1 ]]
    ' answers "$1" 2>/dev/null
}

rabbitmq_last_words() {
    local log
    for log in "$rabbitmq_home"/console.log "$rabbitmq_home"/log/*.log; do
        [[ -s $log ]] && tail -n 20 "$log" | sed 's/^/    /' >&2
    done
    return 0
}

# end_group PID LIMIT_S: TERM, and KILL after the limit, for a process group of our own.
end_group() {
    local pid=$1 deadline=$((SECONDS + $2))
    kill -TERM -- "-$pid" 2>/dev/null || return 0
    while kill -0 -- "-$pid" 2>/dev/null; do
        if ((SECONDS >= deadline)); then
            kill -KILL -- "-$pid" 2>/dev/null
            break
        fi
        sleep 0.1
    done
    wait "$pid" 2>/dev/null
    return 0
}

rabbitmq_stop() {
    [[ -n $rabbitmq_home && -s $rabbitmq_home/group ]] && end_group "$(<"$rabbitmq_home/group")" "$RABBITMQ_STOP_LIMIT_S"
    [[ -n $rabbitmq_epmd_pid ]] && end_group "$rabbitmq_epmd_pid" 2
    [[ -n $rabbitmq_home ]] && rm -rf "$rabbitmq_home"
    local held
    for held in "${rabbitmq_locks[@]}"; do
        local lock=${held%%:*}
        rm -f "/tmp/rpc-tests.port-${held##*:}.lock"
        exec {lock}>&-
    done
    rabbitmq_locks=()
    rabbitmq_epmd_pid=
    rabbitmq_home=
    RABBITMQ_URL=
    RABBITMQ_CTL=
}
