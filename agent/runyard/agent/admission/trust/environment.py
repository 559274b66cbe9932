"""Names of environment variables that can make another program run than the intended one.

Workers are Python programs, and jobs start others: shells, Git, Java, anything on the node. The list cannot
be complete; signatures and the worker's user are what limits a launch.
"""

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase, translate
from typing import Final

_LOADERS: Final = ("LD_*", "DYLD_*", "GLIBC_TUNABLES", "GCONV_PATH", "LOCPATH", "NLSPATH")
"""Variables of the dynamic linker and the C library: ld.so(8)."""

_SHELLS: Final = (
    *("PATH", "HOME", "SHELL", "IFS", "ENV", "BASH_*", "BASHOPTS", "SHELLOPTS", "PS4", "PROMPT_COMMAND"),
    *("EDITOR", "VISUAL", "PAGER", "XDG_CONFIG_*"),
)
"""Locations of programs and their settings. HOME also locates the user's Python packages."""

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
"""Variables by which the agent configures its shims and workers."""

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
"""Exceptions: variables that change a program's output or checks, not which program runs. From python(1)."""


def is_dangerous(name: str) -> bool:
    """True if a variable of that name must be allowed by its full name, not by a pattern."""
    return name not in _HARMLESS and _DANGEROUS.match(name) is not None


def not_settable(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """Return the names that the patterns do not allow, in order. Dangerous names need an exact entry."""
    allowed = tuple(patterns)
    return sorted(
        name
        for name in set(names)
        if name not in allowed
        and (is_dangerous(name) or not any(fnmatchcase(name, pattern) for pattern in allowed))
    )
