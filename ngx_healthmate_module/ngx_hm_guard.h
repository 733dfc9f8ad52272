/*
 * ngx_hm_guard: what the gate of other locations (ngx_hm_guard.c), its
 * directives and its variables (ngx_hm_guard_conf.c) share.
 */

#ifndef NGX_HM_GUARD_H
#define NGX_HM_GUARD_H

#include "ngx_hm.h"

ngx_int_t ngx_hm_guard_handler(ngx_http_request_t *r);
ngx_int_t ngx_hm_guard_sub_handler(ngx_http_request_t *r);
ngx_hm_guard_t *ngx_hm_guard_of(ngx_http_request_t *r);

/* The proven caller; NULL: nobody, or not yet asked. */
const hm_claims_t *ngx_hm_guard_who(ngx_http_request_t *r);

/* What was asked for too early is forgotten. */
void ngx_hm_guard_flush(ngx_http_request_t *r);

#endif
