# deploy/lib/common.sh: what every deploy script agrees on - where things
# lie, who runs them, and how one talks to the person at the terminal.
# Sourced, never run.  HM_ROOT (the source tree) is set by the caller.
#
# Names: HM_HOME   the state folder as the person named it
#        HM_STATE  where it really lies (HM_HOME may be a symlink to it)
#        HM_SOCK   the folder of the Unix sockets (paths stay short)
#        HM_KEY    8 hex digits that tell this stack from others
#
# Everything is a plain function; nothing is started by sourcing this.

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
LC_ALL=C.UTF-8
export PATH LC_ALL
umask 022

say() { printf '%s\n' "healthmate: $*" >&2; }
die() { say "error: $*"; exit 1; }

hm_is_root() { [ "$(id -u)" = 0 ]; }

# Absolute, without trailing slash, last part not resolved: HOME may be a
# symlink, and its name (not its target) tells one stack from another.
hm_absolute() {
    _p=${1%/}
    case $_p in /*) ;; *) _p=$PWD/$_p ;; esac
    mkdir -p "$(dirname "$_p")"
    printf '%s/%s\n' "$(cd "$(dirname "$_p")" && pwd -P)" "$(basename "$_p")"
}

hm_settings() {
    HM_HOME=$(hm_absolute "${HEALTHMATE_HOME:-$HM_ROOT/.run}")
    HM_KEY=$(printf %s "$HM_HOME" | sha256sum | cut -c1-8)
    HM_HTTP_PORT=${HEALTHMATE_HTTP_PORT:-8080}
    HM_HTTPS_PORT=${HEALTHMATE_HTTPS_PORT:-8443}
    HM_OPERATORS_PORT=${HEALTHMATE_OPERATORS_PORT:-9443}
    HM_BIND=${HEALTHMATE_BIND:-127.0.0.1}
    HM_ENVIRONMENT=${HEALTHMATE_ENVIRONMENT:-local}
    HM_NGINX_WORKERS=${HEALTHMATE_NGINX_WORKERS:-2}
    HM_WORKERS=${HEALTHMATE_WORKERS:-2}
    HM_LIMITS=${HEALTHMATE_LIMITS:-on}
    HM_JWT=${HEALTHMATE_JWT:-HS256}
    HM_FINGERPRINT=${HEALTHMATE_FINGERPRINT:-optional}
    HM_AUDIT=${HEALTHMATE_AUDIT:-strict}
    HM_ADMIN_PHI=${HEALTHMATE_ADMIN_PHI:-all}
    HM_CARE_ASSIGN=${HEALTHMATE_CARE_ASSIGN:-patient}
    HM_REGISTER=${HEALTHMATE_REGISTER:-open}
    HM_MFA_REQUIRED=${HEALTHMATE_MFA_REQUIRED:-}
    HM_DEMO=${HEALTHMATE_DEMO:-on}
    HM_MAIL=${HEALTHMATE_MAIL:-outbox}
    HM_PUBLIC_URL=${HEALTHMATE_PUBLIC_URL:-}
    HM_WAF=${HEALTHMATE_WAF:-off}
    HM_CONTACT=${HEALTHMATE_SECURITY_CONTACT:-mailto:security@localhost}
    HM_NGINX=${HEALTHMATE_NGINX:-/usr/sbin/nginx}
    HM_BUILD=$HM_ROOT/build

    for _v in "$HM_HTTPS_PORT" "$HM_OPERATORS_PORT" "$HM_NGINX_WORKERS" \
        "$HM_WORKERS"
    do
        case $_v in
        ''|*[!0-9]*) die "'$_v' is not a number (ports, worker counts)" ;;
        esac
    done
    hm_one_of HEALTHMATE_LIMITS "$HM_LIMITS" on off
    hm_one_of HEALTHMATE_DEMO "$HM_DEMO" on off
    hm_one_of HEALTHMATE_JWT "$HM_JWT" HS256 ES256 EdDSA
    hm_one_of HEALTHMATE_WAF "$HM_WAF" on off
    hm_one_of HEALTHMATE_FINGERPRINT "$HM_FINGERPRINT" on optional off
    hm_one_of HEALTHMATE_AUDIT "$HM_AUDIT" strict bounded
    hm_one_of HEALTHMATE_ADMIN_PHI "$HM_ADMIN_PHI" all break_glass
    hm_one_of HEALTHMATE_CARE_ASSIGN "$HM_CARE_ASSIGN" patient staff
    hm_one_of HEALTHMATE_REGISTER "$HM_REGISTER" open verified invite
    hm_one_of HEALTHMATE_ENVIRONMENT "$HM_ENVIRONMENT" local production
    case $HM_BIND in
    ''|*[!A-Za-z0-9.:-]*) die "HEALTHMATE_BIND is not an address" ;;
    esac
    case $HM_CONTACT in
    *[!A-Za-z0-9._/+@:-]*) die "HEALTHMATE_SECURITY_CONTACT is no URI" ;;
    esac
    case $HM_HTTP_PORT in
    off) ;;
    ''|*[!0-9]*) die "HEALTHMATE_HTTP_PORT is neither a port nor 'off'" ;;
    esac

    hm_place
}

hm_one_of() {    # name value allowed...
    _name=$1 _value=$2
    shift 2
    for _v in "$@"; do
        [ "$_v" != "$_value" ] || return 0
    done
    die "$_name is '$_value', not one of: $*"
}

# Characters that a configuration file could trip over.
hm_odd() { case $1 in *[!A-Za-z0-9._/+@=,-]*) return 0 ;; esac; return 1; }

# Follow HM_HOME if it is there already; deploy/lib/state.sh makes it.
hm_place() {
    HM_STATE=$HM_HOME
    if [ -L "$HM_HOME" ]; then
        HM_STATE=$(readlink -m "$HM_HOME")
    fi
    HM_PIDS=$HM_STATE/pids
    HM_LOGS=$HM_STATE/logs
    HM_CONF=$HM_STATE/conf
    HM_KEYS=$HM_STATE/keys

    if hm_is_root; then
        HM_SOCK=/run/healthmate/$HM_KEY
    else
        # Not $XDG_RUNTIME_DIR: it ends with the login session.
        HM_SOCK=/tmp/healthmate-$(id -u)/$HM_KEY
    fi
}

# The OS users of the services; without root everything is the caller.
hm_users() {
    if hm_is_root; then
        U_PG=hm-pg U_REDIS=hm-redis U_NGINX=hm-nginx U_WORKER=hm-worker
        G_ALL=healthmate G_KEYS=hm-keys
    else
        U_PG=$(id -un) U_REDIS=$U_PG U_NGINX=$U_PG U_WORKER=$U_PG
        G_ALL=$(id -gn) G_KEYS=$G_ALL
    fi
}

# as USER command...: with its groups, and no way back to more rights.
as() {
    _u=$1
    shift
    if hm_is_root; then
        setpriv --reuid "$_u" --regid "$_u" --init-groups --no-new-privs \
            -- "$@"
    else
        "$@"
    fi
}

# One deploy script at a time works on one stack.  Descriptor 9 holds the
# lock; whatever stays running is started with 9>&-.
hm_lock() {
    _l=$(dirname "$HM_SOCK")
    if hm_is_root; then
        mkdir -p "$_l"
    else
        mkdir -p -m 700 "$_l"
        # /tmp is everybody's: someone may have been there before us.
        [ ! -L "$_l" ] && [ -O "$_l" ] || die "$_l is not ours"
    fi
    exec 9>"$_l/$HM_KEY.lock"
    flock -w 900 9 || die "another deploy script works on $HM_HOME"
}

# A pid file names a process of this stack, not a stranger with its number.
hm_pid() {
    [ -s "$1" ] || return 1
    _pid=$(cat "$1" 2>/dev/null) || return 1
    case $_pid in ''|*[!0-9]*) return 1 ;; esac
    [ -r "/proc/$_pid/cmdline" ] || return 1
    tr '\0' ' ' 2>/dev/null <"/proc/$_pid/cmdline" \
        | grep -qF -e "$HM_STATE" -e "$HM_SOCK" || return 1
    printf '%s\n' "$_pid"
}

# A zombie counts as gone: not every container's init reaps at once.
hm_alive() {
    kill -0 "$1" 2>/dev/null \
        && [ -n "$(tr -d '\0' 2>/dev/null <"/proc/$1/cmdline")" ]
}

hm_wait_gone() {    # pid, seconds
    _n=$(($2 * 20))
    while [ "$_n" -gt 0 ] && hm_alive "$1"; do
        sleep 0.05
        _n=$((_n - 1))
    done
    ! hm_alive "$1"
}

# render TEMPLATE OUT: @NAME@ becomes $T_NAME, which must be set (empty is
# fine); lines between "#if NAME" and "#endif" stay only if T_NAME is not
# empty ("#if !NAME": only if it is).  Prints nothing, leaves OUT untouched
# when nothing has changed.
render() {
    awk '
    /^[ \t]*#if / {
        n = $2; neg = sub(/^!/, "", n)
        if (!(("T_" n) in ENVIRON)) { bad = n; exit 1 }
        set = (ENVIRON["T_" n] != "")
        if (off || set == neg) { off++ } else { on++ }
        next
    }
    /^[ \t]*#endif/ { if (off) { off-- } else { on-- } next }
    off { next }
    {
        out = ""; rest = $0
        while (match(rest, /@[A-Z][A-Z0-9_]*@/)) {
            n = substr(rest, RSTART + 1, RLENGTH - 2)
            if (!(("T_" n) in ENVIRON)) { bad = n; exit 1 }
            out = out substr(rest, 1, RSTART - 1) ENVIRON["T_" n]
            rest = substr(rest, RSTART + RLENGTH)
        }
        print out rest
    }
    END {
        if (bad == "" && (on || off)) { bad = "#endif" }
        if (bad != "") {
            print FILENAME ": " bad " is missing" > "/dev/stderr"
            exit 1
        }
    }' "$1" >"$2.new" || die "cannot render $1"
    if cmp -s "$2.new" "$2"; then
        rm -f "$2.new"
    else
        mv -f "$2.new" "$2"
    fi
}
