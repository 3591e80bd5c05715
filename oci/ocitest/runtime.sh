#!/bin/sh
# The OCI runtime of package ocitest. It uses what the shell has built in, so
# that hundreds of containers take seconds.

fail() {
	[ -n "$log" ] && echo "{\"level\":\"error\",\"msg\":\"$1\"}" >>"$log"
	exit 1
}

while :; do
	case "$1" in
	--root) root=$2; shift 2 ;;
	--log) log=$2; shift 2 ;;
	--log-format) shift 2 ;;
	--systemd-cgroup) shift ;;
	*) break ;;
	esac
done
command=$1
shift
while [ $# -gt 1 ]; do
	case "$1" in
	--bundle) bundle=$2; shift 2 ;;
	--pid-file) pidfile=$2; shift 2 ;;
	--console-socket) console=$2; shift 2 ;;
	--process) process=$2; shift 2 ;;
	*) shift ;;
	esac
done
id=$1
state=$root/$id
known=$state
# The file's name has that of the exec.
exec=${pidfile##*/exec-}
exec=${exec%.pid}

if [ "$command" != create ] && [ "$command" != restore ]; then
	{ read -r bundle && read -r init; } 2>/dev/null <"$state" || known=
fi
called=$command
[ "$command" = exec ] && called=exec-$exec
echo "$called" >>"${root%/*}/calls-$id"
# No bundle is known of a container that does not exist.
if [ -n "$bundle" ]; then
	[ -e "$bundle/on-$command" ] && . "$bundle/on-$command"
	[ -e "$bundle/on-$called" ] && [ "$called" != "$command" ] && . "$bundle/on-$called"
fi
[ -n "$known" ] || fail "container $id does not exist"

# run starts a program with the streams or in a terminal, and leaves its pid in
# $pid and in the file for it. The shell in between ends at once, so that the
# program is not this shell's child: it would reap one that ends early.
run() {
	if [ -n "$console" ]; then
		OCITEST_CONSOLE=$console GORACE=atexit_sleep_ms=0 "@SELF@" "$@" >"$pidfile"
	else
		exec 3<&0
		(
			{
				read -r self rest </proc/self/stat
				echo "$self" >"$pidfile"
				exec "$@" <&3 3<&-
			} &
		)
	fi
	until [ -s "$pidfile" ]; do :; done
	read -r pid <"$pidfile"
}

case "$command" in
create | restore)
	(set -C; : >"$state") 2>/dev/null || fail "container with given ID already exists: $id"
	if [ "$command" = create ]; then
		run /bin/sh -c 'read go <"$0/start"; exec /bin/sh "$0/init.sh"' "$bundle"
	else
		run /bin/sh "$bundle/init.sh"
	fi
	printf '%s\n' "$bundle" "$pid" >"$state"
	;;
start)
	kill -0 "$init" 2>/dev/null || fail "cannot start a container that has stopped"
	echo go >"$bundle/start"
	;;
exec)
	kill -0 "$init" 2>/dev/null || fail "cannot exec in a stopped container"
	[ -e "$bundle/exec-$exec.sh" ] || fail "exec: \\\"$exec\\\": executable file not found in \$PATH"
	run /bin/sh "$bundle/exec-$exec.sh"
	;;
pause) kill -STOP "$init" ;;
resume) kill -CONT "$init" ;;
delete)
	[ -z "$init" ] || kill -KILL "$init" 2>/dev/null
	rm -f "$state"
	;;
esac
[ -e "$bundle/after-$command" ] && . "$bundle/after-$command"
[ -e "$bundle/after-$called" ] && [ "$called" != "$command" ] && . "$bundle/after-$called"
exit 0
