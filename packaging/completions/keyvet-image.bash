# completions of keyvet-image, made by its own table of commands
_keyvet_image() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]} words= flags= files=
	case $prev in
	esac
	if [ "$COMP_CWORD" = 1 ]; then
		mapfile -t COMPREPLY < <(compgen -W "write check version help" -- "$cur")
		return
	fi
	case $command in
	"write") flags="" files=yes ;;
	"check") flags="-read-only" files=yes ;;
	"version") flags="-json -v" ;;
	help) words="write check version help" ;;
	esac
	case $cur in
	-*) mapfile -t COMPREPLY < <(compgen -W "$flags" -- "$cur") ;;
	*)
		if [ -n "$words" ]; then
			mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")
		elif [ -n "$files" ]; then
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		fi ;;
	esac
}
complete -o filenames -F _keyvet_image keyvet-image
