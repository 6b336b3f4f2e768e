"""A private stack of otpd: PostgreSQL, responders, worker and nginx in one folder. `python3 -m stack up` is what ./dev runs;
tests find here the names that they use, and stack.harness.Harness, the stack that their fixtures bring up."""
from .codes import CODE_LABEL, address_of, code_context, code_mac, make_token, sodium, token_id, token_raw
from .fastcgi import (FCGI_ABORT, FCGI_BEGIN, FCGI_END, FCGI_PARAMS, FCGI_STDERR, FCGI_STDIN, FCGI_STDOUT, Answer, FastCgi,
                      fcgi_params, fcgi_record, fcgi_request, http_bytes, metric, refused)
from .ports import free_port
from .postgres import pg_bin
from .process import (BUILD, ROOT, Process, as_service, build_shared, family, give_to_service, is_root, is_running,
                      is_sanitized)
from .relay import foreign_text
from .wait import NotReady, wait_for
