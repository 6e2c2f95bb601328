#!/bin/sh
# Compares relay/mail with four other mail parsers on the mails of test
# suites. Run by hand; nothing of the suites is in this repository.
#
#   scripts/corpora/run.sh WORK ENMIME MAILPARSER MAIL [CHECKOUT...]
#
# WORK is a scratch directory. The others are checkouts of jhillyerd/enmime,
# nodemailer/mailparser and mikel/mail, and of any further projects with mails
# in them. CPython's suite is that of $PYTHON (default python3), which must
# have its test package. Needs go, node and npm; ruby for mikel/mail's own parser.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
[ $# -ge 4 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
work=$1 enmime=$2 mailparser=$3 mail=$(cd "$4" && pwd)
shift 4
python=${PYTHON:-python3}

mkdir -p "$work/node" "$work/read" "$work/mails/enmime" "$work/mails/mail" "$work/more"
work=$(cd "$work" && pwd)

# The parsers.
(cd "$work/node" && { [ -f package.json ] || npm init -y >/dev/null; } && npm install --silent mailparser@3.14.2 postal-mime@4.0.0)
export NODE_PATH="$work/node/node_modules"
(cd "$here/enmime" && go build -o "$work/enmime" .)

# The mails: files, and what the suites parse inline.
find "$enmime/testdata" -name '*.raw' | while read -r f; do
	cp "$f" "$work/mails/enmime/$(basename "$(dirname "$f")")-$(basename "$f" .raw).eml"
done
find "$mail/spec/fixtures" -name '*.eml' -exec cp {} "$work/mails/mail/" \;
node "$here/harvest-mailparser.js" "$mailparser" "$work/mails/mailparser"
"$python" "$here/harvest-cpython.py" "$work/mails/cpython" 2>/dev/null
for checkout; do
	"$python" "$here/harvest-files.py" "$checkout" "$work/more/$(basename "$checkout")"
done

# What each parser reads in them.
cd "$work"
find mails more -name '*.eml' -print0 | sort -z >list
for reader in mailparser postal-mime; do
	xargs -0 -n 400 node "$here/oracle-node.js" "$reader" <list >"read/$reader.jsonl"
done
xargs -0 -n 400 "$python" "$here/oracle-python.py" <list >read/cpython.jsonl 2>/dev/null
xargs -0 -n 400 ./enmime <list >read/enmime.jsonl
if command -v ruby >/dev/null; then
	find mails/mail -name '*.eml' -print0 | sort -z | xargs -0 ruby -I "$mail/lib" "$here/oracle-ruby.rb" >read/mail.jsonl 2>/dev/null
fi

cd "$here/../.."
go run ./scripts/corpora "$work/read" "$work/mails"
echo
echo "with the suites' own parsers:"
go run ./scripts/corpora -suite "$work/read" "$work/mails"
for mails in mails more; do
	echo
	echo "with the strict consensus of the others, $mails:"
	go run ./scripts/corpora -strict "$work/read" "$work/$mails"
done
echo
echo "every difference: go run ./scripts/corpora -diff [-strict] $work/read $work/mails"
