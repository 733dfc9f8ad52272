# deploy/lib/local.sh: local is not production.  The local stack listens on
# loopback, has demo accounts and a plain listener; with another address, or
# in production, each of these is refused by name.

hm_is_production() {
    case $HM_BIND in
    127.*|::1|localhost) [ "$HM_ENVIRONMENT" = production ] ;;
    esac
}

hm_refusals() {
    hm_is_production || return 0
    [ "$HM_DEMO" = off ] \
        || echo "demo accounts (HEALTHMATE_DEMO=off)"
    [ "$HM_LIMITS" != off ] \
        || echo "limits off (unset HEALTHMATE_LIMITS)"
    [ "$HM_FINGERPRINT" = on ] \
        || echo "tokens without a fingerprint" \
            "(HEALTHMATE_FINGERPRINT=on)"
    [ "$HM_AUDIT" = strict ] \
        || echo "an audit that is not strict (unset HEALTHMATE_AUDIT)"
    [ "$HM_HTTP_PORT" = off ] \
        || echo "a plain listener (HEALTHMATE_HTTP_PORT=off)"
    [ "$HM_REGISTER" != open ] \
        || echo "registration without a verified address" \
            "(HEALTHMATE_REGISTER=verified or invite)"
    case $HM_MAIL in
    outbox*) echo "mail into an outbox folder (HEALTHMATE_MAIL=smtp)" ;;
    esac
    case $HM_KEYS/ in
    "$HM_STATE/pg/"*) echo "a KEK inside the data folder" ;;
    esac
    # "unless written out": the default does not count.
    [ -n "${HEALTHMATE_ADMIN_PHI:-}" ] \
        || echo "admins reading all health data" \
            "(HEALTHMATE_ADMIN_PHI=break_glass, or all if meant)"
}

hm_check_local() {
    _r=$(hm_refusals)
    [ -n "$_r" ] || return 0
    say "refused on address $HM_BIND, environment $HM_ENVIRONMENT:"
    printf '%s\n' "$_r" | sed 's/^/healthmate: refused: /' >&2
    exit 1
}
