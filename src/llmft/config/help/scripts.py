"""Completion scripts for bash, zsh and fish; each asks ``llmft __complete`` at Tab."""

# `=`, `:` and `@` separate words in readline (COMP_WORDBREAKS), so it replaces only what follows the last of them. Without
# compopt and mapfile, which the bash 3.2 of macOS lacks; so the space after a complete word is a part of the candidate.
BASH = r"""
_llmft() {
    local line="${COMP_LINE:0:COMP_POINT}" breaks="${COMP_WORDBREAKS//[^=:@]/}" word head="" found IFS=$'\n'
    word="${line##*[[:space:]]}"
    [[ -n "$breaks" ]] && head="${word%"${word##*[$breaks]}"}"
    COMPREPLY=()
    found="$("$1" __complete --bash "$line" 2>/dev/null)" || return
    if [[ "$found" == ":files" ]]; then
        # readline's own file names, where the value is a word of its own
        [[ -z "$head" && "$word" == *=* ]] && COMPREPLY=($(compgen -f -P "${word%%=*}=" -- "${word#*=}"))
        return 0
    fi
    for word in $found; do
        word="${word%%$'\t'*}"
        [[ "$word" == *[=.,] ]] || word+=" "
        COMPREPLY+=("${word#"$head"}")
    done
    # no file names where there is nothing to complete
    [[ ${#COMPREPLY[@]} -gt 0 ]] || compopt +o default 2>/dev/null
    return 0
}
complete -o nospace -o default -F _llmft llmft
"""

ZSH = r"""
#compdef llmft
(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
_llmft() {
    local -a lines complete partial shown_complete shown_partial
    local line word shown
    lines=("${(@f)$(${(Q)words[1]} __complete "${(@Q)words[2,CURRENT-1]}" "${(Q)PREFIX}" 2>/dev/null)}")
    if [[ "$lines[1]" == ":files" ]]; then
        compset -P '*='
        _files
        return
    fi
    for line in $lines; do
        word="${line%%$'\t'*}"
        [[ -n "$word" ]] || continue
        shown="${word}  ${line#*$'\t'}"
        shown="${shown[1,COLUMNS-1]}"
        if [[ "$word" == *[=.,] ]]; then
            partial+=("$word")
            shown_partial+=("$shown")
        else
            complete+=("$word")
            shown_complete+=("$shown")
        fi
    done
    (( $#complete )) && compadd -Q -l -d shown_complete -a complete
    (( $#partial )) && compadd -Q -S '' -l -d shown_partial -a partial
}
if [[ "$funcstack[1]" == _llmft ]]; then  # a file of $fpath, loaded at the first Tab
    _llmft
else
    compdef _llmft llmft
fi
"""

FISH = r"""
function __llmft_complete
    set -l words (commandline -opc)
    set -l current (commandline -ct)
    set -l found ($words[1] __complete $words[2..] "$current" 2>/dev/null)
    if test "$found[1]" = ":files"
        set -l key (string split -m 1 = -- "$current")
        for file in (__fish_complete_path "$key[2]")
            printf '%s=%s\n' "$key[1]" "$file"
        end
    else
        printf '%s\n' $found
    end
end
complete -c llmft -f -a '(__llmft_complete)'
"""

SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}
