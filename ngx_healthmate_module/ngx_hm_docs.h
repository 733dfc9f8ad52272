/*
 * ngx_hm_docs: the page of GET /docs, one constant.
 *
 * The page holds nothing of the API itself: a small script fetches
 * /openapi.json, which is built from the tables of this program, and lists
 * it by tag.  So there is nothing here to keep up to date when a route is
 * added.  Without the script the page is a link to the document.
 *
 * Nothing is loaded from elsewhere, and nothing the document says becomes
 * markup: every text goes in by textContent.  The page needs of its Content-
 * Security-Policy: style-src 'unsafe-inline', connect-src 'self', and the
 * script by its hash,
 *
 *   script-src 'sha256-Fe8QS0TxzLkHsecHGbFUssbrJQX4QMuGSfUoxfaX1EA='
 *
 * which is the SHA-256 of what stands between <script> and </script>; a
 * change of the script is a change of that line in lua-free-conf/docs-
 * headers.conf, and t/api/test_openapi.py says the new one.
 *
 * It is a literal (not a pointer), because its length is taken with sizeof.
 */

#ifndef NGX_HM_DOCS_H
#define NGX_HM_DOCS_H


#define NGX_HM_DOCS_HTML                                                      \
    "<!DOCTYPE html>\n"                                                       \
    "<html lang='en'>\n"                                                      \
    "<head>\n"                                                                \
    "<meta charset='utf-8'>\n"                                                \
    "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"  \
    "<title>HealthMate API</title>\n"                                         \
    "<style>\n"                                                               \
    ":root{color-scheme:light dark}\n"                                        \
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:0 "       \
      "auto;padding:1rem}\n"                                                  \
    "code,pre{font-family:ui-monospace,monospace;font-size:.9em}\n"           \
    "code{overflow-wrap:anywhere}\n"                                          \
    "pre{overflow:auto;padding:.5rem;border:1px solid #8888}\n"               \
    "details{border-bottom:1px solid #8888;padding:.4rem 0}\n"                \
    "summary{cursor:pointer}\n"                                               \
    "h2{margin-top:2rem}\n"                                                   \
    "h3{font-size:1rem;margin:.8rem 0 .2rem}\n"                               \
    "table{border-collapse:collapse;width:100%}\n"                            \
    "th,td{text-align:left;vertical-align:top;padding:.2rem .8rem .2rem "     \
      "0;border-top:1px solid #8884}\n"                                       \
    "nav ul{list-style:none;padding:0;display:flex;flex-wrap:wrap;gap:.2rem " \
      "1rem}\n"                                                               \
    ".verb{display:inline-block;min-width:4.5em;font-weight:bold}\n"          \
    "</style>\n"                                                              \
    "</head>\n"                                                               \
    "<body>\n"                                                                \
    "<header>\n"                                                              \
    "<h1>HealthMate API</h1>\n"                                               \
    "<p id='about'>The whole description is <a "                              \
      "href='/openapi.json'>/openapi.json</a>\n"                              \
    "(OpenAPI 3.1).</p>\n"                                                    \
    "<noscript><p>This page lists the endpoints with a script. Without one, " \
      "read the document or give it to any OpenAPI tool.</p></noscript>\n"    \
    "<nav aria-label='Groups'><ul id='groups'></ul></nav>\n"                  \
    "</header>\n"                                                             \
    "<main id='main' aria-busy='true'><p role='status'>Loading the "          \
      "description.</p></main>\n"                                             \
    "<script>\n"                                                              \
    "'use strict';\n"                                                         \
    "(function () {\n"                                                        \
    "var doc, main = document.getElementById('main');\n"                      \
    "\n"                                                                      \
    "function el(name, text) {\n"                                             \
    "  var e = document.createElement(name);\n"                               \
    "  if (text !== undefined) { e.textContent = text; }\n"                   \
    "  for (var i = 2; i < arguments.length; i++) {\n"                        \
    "    if (arguments[i]) { e.append(arguments[i]); }\n"                     \
    "  }\n"                                                                   \
    "  return e;\n"                                                           \
    "}\n"                                                                     \
    "\n"                                                                      \
    "function link(to, text) {\n"                                             \
    "  var a = el('a', text);\n"                                              \
    "  a.href = to;\n"                                                        \
    "  return a;\n"                                                           \
    "}\n"                                                                     \
    "\n"                                                                      \
    "function find(o) {\n"                                                    \
    "  if (!o || !o.$ref) { return o || {}; }\n"                              \
    "  return o.$ref.slice(2).split('/').reduce(function (at, part) {\n"      \
    "    return at[part];\n"                                                  \
    "  }, doc);\n"                                                            \
    "}\n"                                                                     \
    "\n"                                                                      \
    "function type(s) {\n"                                                    \
    "  var e = el('span', ''), list;\n"                                       \
    "  if (!s) { return e; }\n"                                               \
    "  if (s.$ref) {\n"                                                       \
    "    e.append(link('#schema-' + s.$ref.split('/').pop(),\n"               \
    "                  s.$ref.split('/').pop()));\n"                          \
    "    return e;\n"                                                         \
    "  }\n"                                                                   \
    "  list = s.anyOf || s.oneOf;\n"                                          \
    "  if (list) {\n"                                                         \
    "    list.forEach(function (one, i) {\n"                                  \
    "      if (i) { e.append(' or '); }\n"                                    \
    "      e.append(type(one));\n"                                            \
    "    });\n"                                                               \
    "    return e;\n"                                                         \
    "  }\n"                                                                   \
    "  if (s.const !== undefined) { e.append(JSON.stringify(s.const)); "      \
      "return e; }\n"                                                         \
    "  e.append([].concat(s.type || 'any').join(' or '));\n"                  \
    "  if (s.items) { e.append(' of ', type(s.items)); }\n"                   \
    "  ['format', 'pattern', 'minimum', 'maximum', 'minLength', "             \
      "'maxLength',\n"                                                        \
    "   'minItems', 'maxItems', 'default'].forEach(function (k) {\n"          \
    "    if (s[k] !== undefined) { e.append(', ' + k + ' ' + s[k]); }\n"      \
    "  });\n"                                                                 \
    "  if (s.enum) { e.append(': ' + s.enum.join(', ')); }\n"                 \
    "  return e;\n"                                                           \
    "}\n"                                                                     \
    "\n"                                                                      \
    "function table(caption, heads, rows) {\n"                                \
    "  var t = el('table'), tr = el('tr');\n"                                 \
    "  if (!rows.length) { return null; }\n"                                  \
    "  t.append(el('caption', caption));\n"                                   \
    "  heads.forEach(function (h) {\n"                                        \
    "    var th = el('th', h);\n"                                             \
    "    th.scope = 'col';\n"                                                 \
    "    tr.append(th);\n"                                                    \
    "  });\n"                                                                 \
    "  t.append(tr);\n"                                                       \
    "  rows.forEach(function (row) {\n"                                       \
    "    tr = el('tr');\n"                                                    \
    "    row.forEach(function (cell) { tr.append(el('td', undefined, cell)); " \
      "});\n"                                                                 \
    "    t.append(tr);\n"                                                     \
    "  });\n"                                                                 \
    "  return t;\n"                                                           \
    "}\n"                                                                     \
    "\n"                                                                      \
    "function content(c) {\n"                                                 \
    "  var e = el('span', '');\n"                                             \
    "  Object.keys(c || {}).forEach(function (k, i) {\n"                      \
    "    if (i) { e.append('; '); }\n"                                        \
    "    e.append(el('code', k), ' ', type(c[k].schema));\n"                  \
    "  });\n"                                                                 \
    "  return e;\n"                                                           \
    "}\n"                                                                     \
    "\n"                                                                      \
    "function operation(path, verb, op) {\n"                                  \
    "  var d = el('details'), s = el('summary'), v = el('span', "             \
      "verb.toUpperCase());\n"                                                \
    "  v.className = 'verb';\n"                                               \
    "  s.append(v, ' ', el('code', path), ' ', op.summary || '');\n"          \
    "  d.id = op.operationId;\n"                                              \
    "  d.append(s);\n"                                                        \
    "  if (op.description) { d.append(el('p', op.description)); }\n"          \
    "  d.append(table('Parameters', ['Name', 'In', 'Type', 'Meaning'],\n"     \
    "    (op.parameters || []).map(find).map(function (p) {\n"                \
    "      return [el('code', p.name), p.in + (p.required ? ', required' : "  \
      "''),\n"                                                                \
    "              type(p.schema), p.description];\n"                         \
    "    })) || '');\n"                                                       \
    "  if (op.requestBody) {\n"                                               \
    "    d.append(el('h3', 'Body'), content(op.requestBody.content));\n"      \
    "  }\n"                                                                   \
    "  d.append(table('Answers', ['Status', 'Body', 'Meaning'],\n"            \
    "    Object.keys(op.responses).map(function (k) {\n"                      \
    "      var r = find(op.responses[k]);\n"                                  \
    "      return [k, content(r.content), r.description];\n"                  \
    "    })) || '');\n"                                                       \
    "  return d;\n"                                                           \
    "}\n"                                                                     \
    "\n"                                                                      \
    "function schema(name, s) {\n"                                            \
    "  var d = el('details'), must = s.required || [];\n"                     \
    "  d.id = 'schema-' + name;\n"                                            \
    "  d.append(el('summary', undefined, el('code', name)));\n"               \
    "  if (s.description) { d.append(el('p', s.description)); }\n"            \
    "  if (s.properties) {\n"                                                 \
    "    d.append(table('Members', ['Name', 'Type', 'Meaning'],\n"            \
    "      Object.keys(s.properties).map(function (k) {\n"                    \
    "        var p = s.properties[k];\n"                                      \
    "        return [el('code', k + (must.indexOf(k) < 0 ? '?' : '')), "      \
      "type(p),\n"                                                            \
    "                p.description];\n"                                       \
    "      })) || '');\n"                                                     \
    "  } else {\n"                                                            \
    "    d.append(type(s));\n"                                                \
    "  }\n"                                                                   \
    "  d.append(el('h3', 'Schema'), el('pre', JSON.stringify(s, null, 1)));\n" \
    "  return d;\n"                                                           \
    "}\n"                                                                     \
    "\n"                                                                      \
    "function group(name, parts) {\n"                                         \
    "  var s = el('section'), h = el('h2', name), id = 'group-' + "           \
      "name.replace(/\\W/g, '-');\n"                                          \
    "  h.id = id;\n"                                                          \
    "  s.setAttribute('aria-labelledby', id);\n"                              \
    "  s.append(h);\n"                                                        \
    "  parts.forEach(function (p) { s.append(p); });\n"                       \
    "  main.append(s);\n"                                                     \
    "  document.getElementById('groups').append(\n"                           \
    "    el('li', undefined, link('#' + id, name)));\n"                       \
    "}\n"                                                                     \
    "\n"                                                                      \
    "function show() {\n"                                                     \
    "  var e = document.getElementById(location.hash.slice(1));\n"            \
    "  if (e) { e.open = true; e.scrollIntoView(); }\n"                       \
    "}\n"                                                                     \
    "\n"                                                                      \
    "fetch('/openapi.json').then(function (r) {\n"                            \
    "  if (!r.ok) { throw new Error('status ' + r.status); }\n"               \
    "  return r.json();\n"                                                    \
    "}).then(function (got) {\n"                                              \
    "  var tags = new Map();\n"                                               \
    "  doc = got;\n"                                                          \
    "  Object.keys(doc.paths).forEach(function (path) {\n"                    \
    "    Object.keys(doc.paths[path]).forEach(function (verb) {\n"            \
    "      var op = doc.paths[path][verb], tag;\n"                            \
    "      if (!op.responses) { return; }\n"                                  \
    "      tag = (op.tags || ['Other'])[0];\n"                                \
    "      if (!tags.has(tag)) { tags.set(tag, []); }\n"                      \
    "      tags.get(tag).push(operation(path, verb, op));\n"                  \
    "    });\n"                                                               \
    "  });\n"                                                                 \
    "  main.textContent = '';\n"                                              \
    "  document.getElementById('about').append(' Version ' + "                \
      "doc.info.version + '.');\n"                                            \
    "  tags.forEach(function (ops, tag) { group(tag, ops); });\n"             \
    "  group('Schemas', Object.keys(doc.components.schemas).map(function (k) " \
      "{\n"                                                                   \
    "    return schema(k, doc.components.schemas[k]);\n"                      \
    "  }));\n"                                                                \
    "  show();\n"                                                             \
    "}).catch(function (e) {\n"                                               \
    "  main.textContent = '';\n"                                              \
    "  var p = el('p', 'The description could not be loaded: ' + "            \
      "e.message);\n"                                                         \
    "  p.setAttribute('role', 'alert');\n"                                    \
    "  main.append(p);\n"                                                     \
    "}).finally(function () { main.removeAttribute('aria-busy'); });\n"       \
    "\n"                                                                      \
    "window.addEventListener('hashchange', show);\n"                          \
    "})();\n"                                                                 \
    "</script>\n"                                                             \
    "</body>\n"                                                               \
    "</html>\n"


#endif
