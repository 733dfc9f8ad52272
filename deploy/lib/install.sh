# deploy/lib/install.sh: the packages of a bare Debian 12.  Nothing is asked,
# no distribution service is started, and when all are there apt is not even
# called.

HM_PACKAGES_RUN="ca-certificates curl gcc make libc6-dev binutils python3 \
nginx nginx-dev postgresql redis-server sqitch \
libdbd-pg-perl libpq-dev libhiredis-dev libjansson-dev libjwt-dev \
libargon2-dev libunistring-dev libfido2-dev liboath-dev \
libqrencode-dev libssl-dev libcurl4-openssl-dev openssl \
util-linux procps passwd gzip logrotate"

# Only with HEALTHMATE_WAF=on.
HM_PACKAGES_WAF="libnginx-mod-http-modsecurity modsecurity-crs"

HM_PACKAGES_TEST="libcmocka-dev python3-pytest python3-aiosmtpd \
chromium oathtool python3-h2 testssl.sh certbot pebble $HM_PACKAGES_WAF \
libtap-parser-sourcehandler-pgtap-perl"

# The oracles of npm; where npm comes from elsewhere it is left alone.
command -v npm >/dev/null 2>&1 || HM_PACKAGES_TEST="$HM_PACKAGES_TEST npm"

# pgTAP is packaged per PostgreSQL version.
hm_packages_pgtap() {
    _v=$(apt-cache depends postgresql 2>/dev/null \
        | sed -n 's/.*Depends: postgresql-\([0-9][0-9]*\)$/\1/p' | head -n 1)
    printf 'postgresql-%s-pgtap' "${_v:-15}"
}

hm_missing() {
    for _p in "$@"; do
        case $(dpkg-query -W -f '${db:Status-Status}' "$_p" 2>/dev/null) in
        installed) ;;
        *) printf '%s ' "$_p" ;;
        esac
    done
}

hm_sudo() {
    if hm_is_root; then "$@"; else sudo "$@"; fi
}

# While packages install, policy-rc.d keeps their services from starting; a
# policy that was there before comes back afterwards.
hm_policy() {
    _policy=/usr/sbin/policy-rc.d
    if [ "$1" = on ]; then
        if [ -e $_policy ] && [ ! -e $_policy.healthmate ]; then
            hm_sudo mv $_policy $_policy.healthmate
        fi
        printf '#!/bin/sh\nexit 101\n' | hm_sudo tee $_policy >/dev/null
        hm_sudo chmod 755 $_policy
    else
        hm_sudo rm -f $_policy
        if [ -e $_policy.healthmate ]; then
            hm_sudo mv $_policy.healthmate $_policy
        fi
    fi
}

hm_apt() {
    hm_sudo env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -q -y -o Acquire::Retries=5 -o DPkg::Lock::Timeout=600 \
        -o Dpkg::Options::=--force-confdef \
        -o Dpkg::Options::=--force-confold "$@" </dev/null
}

hm_install() {    # package...
    _need=$(hm_missing "$@")
    [ -n "$_need" ] || return 0
    hm_is_root || command -v sudo >/dev/null 2>&1 \
        || die "these packages are missing and there is no sudo: $_need"
    command -v apt-get >/dev/null 2>&1 || die "this needs Debian 12 (apt-get)"

    say "installing: $_need"
    trap 'hm_policy off; exit 1' INT TERM HUP
    hm_policy on
    # Word splitting of the list is meant.
    # shellcheck disable=SC2086
    if hm_apt update >&2 && hm_apt install --no-install-recommends $_need >&2
    then _rc=0; else _rc=1; fi
    hm_policy off
    trap - INT TERM HUP
    [ $_rc = 0 ] || die "apt-get failed; the lines above say why"
}
