# deploy/lib/build.sh: make what the stack runs.  Two stacks may come up from
# one tree at the same time, so the build folder has a lock of its own.

hm_build() {
    mkdir -p "$HM_BUILD"
    (
        flock -w 900 8 || die "another build runs in $HM_BUILD"
        cd "$HM_ROOT" || exit 1
        for _part in module worker cli; do
            make -s -j "$(nproc)" $_part >"$HM_BUILD/$_part.log" 2>&1 9>&- \
                && continue
            tail -n 40 "$HM_BUILD/$_part.log" >&2
            die "make $_part failed ($HM_BUILD/$_part.log)"
        done
    ) 8>"$HM_BUILD/.lock" || exit 1
}
