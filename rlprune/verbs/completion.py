"""``rlprune completion bash|zsh``: a script that lets the shell complete verbs, options and settings."""

import argparse

from rlprune.config_loading import field_help
from rlprune.verbs.options import Subparsers

_BASH = """\
# rlprune completion bash, version {version}
_rlprune() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" words=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{verbs} --help --version" -- "$current"))
        return
    fi
    case "${{COMP_WORDS[1]}} $before" in
{values}
    esac
    if [ -z "$words" ] && [ "${{current#-}}" != "$current" ]; then
        case "${{COMP_WORDS[1]}}" in
{options}
        esac
    fi
    if [ -n "$words" ]; then
        COMPREPLY=($(compgen -W "$words" -- "$current"))
        case "$before" in --set) compopt -o nospace 2> /dev/null ;; esac
    fi
}}
complete -o default -F _rlprune rlprune
"""
_ZSH_BEFORE = """\
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i; }
autoload -U +X bashcompinit && bashcompinit
"""
"""zsh takes bash's completions after this, also where nothing has started its own."""
_ZSH_AFTER = """\
_rlprune_zsh() {
    local -a space=()
    [[ ${words[CURRENT-1]} == --set ]] && space=(-o nospace)
    _bash_complete -o default "${space[@]}" -F _rlprune
}
compdef _rlprune_zsh rlprune
"""
"""zsh has no ``compopt``: whether a space follows is said when its completion is called."""


def register(subparsers: Subparsers) -> None:
    """Adds the verb."""
    verb = subparsers.add_parser(
        "completion",
        help="print a script that completes verbs, options and settings",
        description="print a script for the shell; to have it in every new one: "
        "rlprune completion bash >> ~/.bash_completion, or rlprune completion zsh >> ~/.zshrc",
    )
    verb.add_argument("shell", choices=("bash", "zsh"), help="which shell")
    verb.set_defaults(run_verb=completion, verbs=subparsers.choices)


def completion(arguments: argparse.Namespace) -> int:
    """Prints the script."""
    if arguments.shell == "zsh":
        print(_ZSH_BEFORE, end="")
    print(_script(arguments.verbs), end="")
    if arguments.shell == "zsh":
        print(_ZSH_AFTER, end="")
    return 0


def _script(verbs: dict[str, argparse.ArgumentParser]) -> str:
    from rlprune import __version__

    values, options = [], []
    for name, parser in verbs.items():
        actions = [action for action in parser._actions if action.option_strings]
        strings = [text for action in actions for text in action.option_strings]
        options.append(f'            {name}) words="{" ".join(strings)}" ;;')
        for action in actions:
            words = _words(action)
            if words:
                pattern = "|".join(f'"{name} {text}"' for text in action.option_strings)
                values.append(f'        {pattern}) words="{" ".join(words)}" ;;')
        for action in parser._actions:
            if not action.option_strings and action.choices:
                values.append(f'        "{name} {name}") words="{" ".join(map(str, action.choices))}" ;;')
    return _BASH.format(
        version=__version__, verbs=" ".join(verbs), values="\n".join(values), options="\n".join(options)
    )


def _words(action: argparse.Action) -> list[str]:
    """What may follow an option, where that is known; nothing otherwise."""
    if action.choices:
        return [str(choice) for choice in action.choices]
    settings = {entry.name: entry for entry in field_help()}
    if "--set" in action.option_strings:
        return [f"{name}=" for name in settings]
    return list(settings[action.dest].choices or ()) if action.dest in settings else []
