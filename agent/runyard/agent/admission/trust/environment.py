"""Names of variables by which whoever sets them can make another program run than the one that is started.

A worker's program is Python, and jobs start others: shells, Git, Java, whatever is on the node. The list can
never be complete; what a launch does is bounded by signatures and by the user it runs as.
"""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase, translate
from typing import Final

_LOADERS: Final = ("LD_*", "DYLD_*", "GLIBC_TUNABLES", "GCONV_PATH", "LOCPATH", "NLSPATH")
"""Of the dynamic linker and the C library: ld.so(8)."""

_SHELLS: Final = (
    *("PATH", "HOME", "SHELL", "IFS", "ENV", "BASH_*", "BASHOPTS", "SHELLOPTS", "PS4", "PROMPT_COMMAND"),
    *("EDITOR", "VISUAL", "PAGER", "XDG_CONFIG_*"),
)
"""Where programs and their settings are found. HOME also says where Python looks for its user's packages."""

_LANGUAGES: Final = (
    *(
        "PYTHON*",
        "PERL5*",
        "PERLLIB",
        "RUBYLIB",
        "RUBYOPT",
        "GEM_HOME",
        "GEM_PATH",
        "NODE_OPTIONS",
        "NODE_PATH",
    ),
    *("LUA_PATH*", "LUA_CPATH*", "LUA_INIT*", "R_PROFILE*", "R_ENVIRON*", "R_LIBS*", "JULIA_LOAD_PATH"),
    *("JULIA_DEPOT_PATH", "CLASSPATH", "JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS"),
)

_TOOLS: Final = (
    *(
        "GIT_SSH*",
        "GIT_EXEC_PATH",
        "GIT_CONFIG*",
        "GIT_ASKPASS",
        "GIT_EDITOR",
        "GIT_PAGER",
        "GIT_TEMPLATE_DIR",
    ),
    *("GIT_EXTERNAL_DIFF", "GIT_PROXY_COMMAND", "SSH_ASKPASS", "OPENSSL_CONF", "OPENSSL_MODULES"),
    "OPENSSL_ENGINES",
)

_OURS: Final = ("RUNYARD_*",)
"""What the agent tells its shims and workers."""

_DANGEROUS: Final = re.compile("|".join(map(translate, (*_LOADERS, *_SHELLS, *_LANGUAGES, *_TOOLS, *_OURS))))

_HARMLESS: Final = frozenset(
    {
        *("PYTHONASYNCIODEBUG", "PYTHONCOERCECLOCALE", "PYTHONDEBUG", "PYTHONDEVMODE"),
        *("PYTHONDONTWRITEBYTECODE", "PYTHONFAULTHANDLER", "PYTHONHASHSEED", "PYTHONINTMAXSTRDIGITS"),
        *("PYTHONIOENCODING", "PYTHONMALLOC", "PYTHONNODEBUGRANGES", "PYTHONNOUSERSITE", "PYTHONOPTIMIZE"),
        *("PYTHONPROFILEIMPORTTIME", "PYTHONSAFEPATH", "PYTHONTRACEMALLOC", "PYTHONUNBUFFERED"),
        *("PYTHONUTF8", "PYTHONVERBOSE"),
    }
)
"""Of the above: what changes how a program talks or checks, not which one runs. From python(1)."""


def is_dangerous(name: str) -> bool:
    """Whether a variable of that name needs to be allowed in full, and by no pattern."""
    return name not in _HARMLESS and _DANGEROUS.match(name) is not None


def not_settable(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The names that the patterns do not allow, in order. For a dangerous one, only its own name counts."""
    allowed = tuple(patterns)
    return sorted(
        name
        for name in set(names)
        if name not in allowed
        and (is_dangerous(name) or not any(fnmatchcase(name, pattern) for pattern in allowed))
    )
