/*
 * ngx_hm_cluster: limits of several nodes together (healthmate_rate_limit_
 * cluster on).
 *
 * Each node counts in its own shared memory and answers from there, so Redis
 * is never waited for and its absence changes nothing but the reach of the
 * count.  What was taken is added to a counter in Redis as well (INCRBY, and
 * PEXPIRE for the first), and the answer, a moment later, lifts this node's
 * counter to what all nodes have counted.  Until then a node does not know
 * of what the others admitted: at most one round trip to Redis too much.
 *
 * The name of a counter is a MAC of who is counted: nobody can read from
 * Redis who used the service or who tries to log in.
 */

#include "ngx_hm_limit.h"


#define NGX_HM_CLUSTER_MAX   (NGX_HM_CALLER + 32)


void
ngx_hm_cluster_add(ngx_hm_counter_t of, const u_char *who, size_t len,
    uint64_t key, ngx_int_t n, uint64_t window)
{
    u_char         in[1 + NGX_HM_CLUSTER_MAX];
    char           name[5 + 24];
    hm_str_t       s;
    unsigned char  mac[32];

    if (len > NGX_HM_CLUSTER_MAX) {
        return;
    }

    in[0] = (u_char) of;
    ngx_memcpy(in + 1, who, len);

    if (ngx_hm_mac(mac, "rate", in, len + 1) != NGX_OK) {
        ngx_hm_count(NGX_HM_M_CLUSTER_LOST, 1);
        return;
    }

    ngx_memcpy(name, "hm:r:", 5);
    s.data = (u_char *) name;
    s.len = 5 + hm_b64url_encode(name + 5, mac, 16);

    if (ngx_hm_redis_count(s, n, window, of, key) != NGX_OK) {
        ngx_hm_count(NGX_HM_M_CLUSTER_LOST, 1);
    }
}


/* What Redis says: the count, and the milliseconds its window has left. */
void
ngx_hm_cluster_told(ngx_uint_t of, uint64_t key, int64_t count, int64_t rest)
{
    if (count <= 0 || rest <= 0) {
        return;
    }

    ngx_hm_count(NGX_HM_M_CLUSTER_COUNTS, 1);

    if (of == NGX_HM_OF_RATE) {
        ngx_hm_limit_learn(key, (uint64_t) count, (uint64_t) rest);

    } else {
        ngx_hm_login_learn(of, key, (uint64_t) count);
    }
}
