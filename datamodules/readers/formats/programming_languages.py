"""Programming languages by the suffixes of their files.

Suffixes alone misjudge a few (.h, .m, .pl), but need no look at a file; the names are GitHub linguist's.
"""

from pathlib import PurePosixPath

LANGUAGES: dict[str, tuple[str, ...]] = {
    "Ada": (".adb", ".ads"),
    "Agda": (".agda",),
    "Assembly": (".asm", ".s"),
    "Awk": (".awk",),
    "Batchfile": (".bat", ".cmd"),
    "C": (".c", ".h"),
    "C#": (".cs",),
    "C++": (".cc", ".cpp", ".cxx", ".hh", ".hpp", ".hxx", ".ipp", ".inl"),
    "CMake": (".cmake", "cmakelists.txt"),
    "CSS": (".css",),
    "Clojure": (".clj", ".cljs", ".cljc"),
    "CoffeeScript": (".coffee",),
    "Common Lisp": (".lisp", ".lsp"),
    "Cuda": (".cu", ".cuh"),
    "D": (".d",),
    "Dart": (".dart",),
    "Dockerfile": (".dockerfile", "dockerfile"),
    "Elixir": (".ex", ".exs"),
    "Elm": (".elm",),
    "Emacs Lisp": (".el",),
    "Erlang": (".erl", ".hrl"),
    "F#": (".fs", ".fsi", ".fsx"),
    "Fortran": (".f", ".f77", ".f90", ".f95", ".f03", ".f08", ".for"),
    "GLSL": (".glsl", ".vert", ".frag"),
    "Go": (".go",),
    "Groovy": (".groovy", ".gradle"),
    "HTML": (".html", ".htm"),
    "Haskell": (".hs", ".lhs"),
    "Idris": (".idr",),
    "JSON": (".json",),
    "Java": (".java",),
    "JavaScript": (".js", ".jsx", ".mjs", ".cjs"),
    "Julia": (".jl",),
    "Kotlin": (".kt", ".kts"),
    "Lean": (".lean",),
    "Lua": (".lua",),
    "Makefile": (".mk", "makefile", "gnumakefile"),
    "Markdown": (".md", ".markdown"),
    "Mathematica": (".wl",),
    "Nix": (".nix",),
    "OCaml": (".ml", ".mli"),
    "Objective-C": (".m", ".mm"),
    "PHP": (".php",),
    "Pascal": (".pas", ".pp"),
    "Perl": (".pl", ".pm"),
    "PowerShell": (".ps1", ".psm1"),
    "Prolog": (".pro", ".prolog"),
    "Protocol Buffer": (".proto",),
    "Python": (".py", ".pyi", ".pyx"),
    "R": (".r",),
    "Racket": (".rkt",),
    "reStructuredText": (".rst",),
    "Ruby": (".rb", ".rake"),
    "Rust": (".rs",),
    "SQL": (".sql",),
    "Scala": (".scala", ".sc"),
    "Scheme": (".scm", ".ss"),
    "Shell": (".sh", ".bash", ".zsh"),
    "Solidity": (".sol",),
    "Standard ML": (".sml",),
    "Stan": (".stan",),
    "Swift": (".swift",),
    "SystemVerilog": (".sv", ".svh"),
    "Tcl": (".tcl",),
    "TeX": (".tex", ".sty", ".cls"),
    "Thrift": (".thrift",),
    "TypeScript": (".ts", ".tsx", ".mts", ".cts"),
    "VHDL": (".vhd", ".vhdl"),
    "Verilog": (".v", ".vh"),
    "Visual Basic": (".vb", ".bas"),
    "Vue": (".vue",),
    "YAML": (".yaml", ".yml"),
    "Zig": (".zig",),
}
"""Name -> suffixes, or whole names of files, in lower case."""

_BY_SUFFIX = {suffix: language for language, suffixes in LANGUAGES.items() for suffix in suffixes}


def language_of(name: str) -> str | None:
    """Language of a file by its name, or None."""
    name = name.lower()
    return _BY_SUFFIX.get(name) or _BY_SUFFIX.get(PurePosixPath(name).suffix)
