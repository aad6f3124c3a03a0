# Completion of metvae in bash. To use it, add to ~/.bashrc:  eval "$(metvae --completion bash)"

_metvae_reply() {
    # Offer those of the words $1 that begin with the typed word. Bash replaces only what follows the last "=" or ":"
    # of it, where these break words, so what stands before that is taken off every offer.
    local typed="${COMP_LINE:0:COMP_POINT}" offer kept=""
    typed="${typed##*[[:space:]]}"
    [[ "$COMP_WORDBREAKS" == *=* && "$typed" == *=* ]] && kept="${typed%"${typed##*=}"}"
    [[ "$COMP_WORDBREAKS" == *:* && "${typed#"$kept"}" == *:* ]] && kept="${typed%"${typed##*:}"}"
    COMPREPLY=()
    while IFS= read -r offer; do
        [[ -n "$offer" ]] && COMPREPLY+=("${offer#"$kept"}")
    done < <(compgen -W "$1" -- "$typed")
    # More is to be typed after "group=" and "key.": no space there.
    if (( ${#COMPREPLY[@]} == 1 )) && [[ "${COMPREPLY[0]}" == *[=./:] ]]; then
        compopt -o nospace 2>/dev/null
    fi
    return 0
}

_metvae_hydra() {
    # Hydra completes a line "program override ...": the command is taken out of the line before Hydra sees it.
    local line="${COMP_LINE:0:COMP_POINT}"
    line="${line#*"${COMP_WORDS[0]}"}"
    line="metvae${line#*"${COMP_WORDS[1]}"}"
    COMP_LINE="$line" COMP_POINT="${#line}" "${COMP_WORDS[0]}" "${COMP_WORDS[1]}" -sc query=bash 2>/dev/null
}

_metvae() {
    if (( COMP_CWORD == 1 )); then
        _metvae_reply "@COMMANDS@ help --help --version --completion"
        return
    fi
    case "${COMP_WORDS[1]}" in
        --completion) _metvae_reply "bash" ;;
        help) _metvae_reply "@COMMANDS@" ;;
        compare)
            _metvae_reply "--metric --sort --reverse --filter --by --error --confidence --paired --importance --plot \
--format --output --help"
            ;;
        info) _metvae_reply "--json --help" ;;
        configs)
            if (( COMP_CWORD == 2 )); then
                _metvae_reply "list show copy --help"
            elif [[ "${COMP_WORDS[2]}" == list ]]; then
                _metvae_reply "$("${COMP_WORDS[0]}" configs list 2>/dev/null | sed 's/=.*//' | sort -u)"
            else
                _metvae_reply "$("${COMP_WORDS[0]}" configs list 2>/dev/null | sed 's/ .*//')"
            fi
            ;;
        *) _metvae_reply "$(_metvae_hydra)" ;;
    esac
}

complete -o default -F _metvae metvae
