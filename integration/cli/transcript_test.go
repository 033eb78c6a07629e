package cli

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/engined/engined/integration/harness"
)

// step is one command of a transcript.
type step struct {
	line    int
	command string
	status  int
	stdout  []string // expected lines, nil: any
	differs string   // why the reference answers otherwise
}

// parse reads a transcript.
func parse(text string) ([]step, error) {
	var steps []step
	for i, line := range strings.Split(text, "\n") {
		mark, rest, _ := strings.Cut(line, " ")
		if mark == "" || strings.HasPrefix(mark, "#") {
			continue
		}
		if mark == "$" {
			steps = append(steps, step{line: i + 1, command: rest})
			continue
		}
		if len(steps) == 0 {
			return nil, fmt.Errorf("line %d: %q before the first command", i+1, line)
		}
		last := &steps[len(steps)-1]
		switch mark {
		case "?":
			status, err := strconv.Atoi(rest)
			if err != nil {
				return nil, fmt.Errorf("line %d: %w", i+1, err)
			}
			last.status = status
		case ">":
			last.stdout = append(last.stdout, rest)
		case "~":
			last.differs = rest
		default:
			return nil, fmt.Errorf("line %d: unknown mark %q", i+1, mark)
		}
	}
	return steps, nil
}

func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts (%v)", err)
	}
	stack := harness.New(t, harness.Options{Bridge: true})
	var reference *harness.Dockerd
	t.Run("reference", func(r *testing.T) { reference = harness.NewReference(t, r) })
	harness.EachCLI(t, func(t *testing.T, cli harness.CLI) {
		for _, file := range files {
			t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				steps, err := parse(string(text))
				if err != nil {
					t.Fatalf("%s: %v", file, err)
				}
				ours := carryOut(t, "engined", steps, cli.At(t, stack.Host()))
				if reference != nil {
					compare(t, steps, ours, carryOut(t, "dockerd", steps, cli.At(t, reference.Host())))
				}
			})
		}
	})
}

// carryOut runs the steps in one scratch directory, checks what the transcript
// asserts and returns the normalised answers.
func carryOut(t *testing.T, engine string, steps []step, cli harness.CLI) []harness.Result {
	t.Helper()
	words := newNormaliser()
	scratch := t.TempDir()
	var answers []harness.Result
	for _, step := range steps {
		answer := cli.Shell(t, "cd "+scratch+"\n"+step.command)
		if answer.Status != step.status && (engine == "engined" || step.differs == "") {
			t.Errorf("line %d on %s: $ %s\nexit status %d, want %d\n%s%s", step.line, engine, step.command,
				answer.Status, step.status, answer.Stdout, answer.Stderr)
		}
		answer.Stdout, answer.Stderr = words.normal(answer.Stdout), words.normal(answer.Stderr)
		if want := strings.Join(step.stdout, "\n") + "\n"; step.stdout != nil && answer.Stdout != want && (engine == "engined" || step.differs == "") {
			t.Errorf("line %d on %s: $ %s\nstdout %q\nwant   %q", step.line, engine, step.command, answer.Stdout, want)
		}
		answers = append(answers, answer)
	}
	return answers
}

func compare(t *testing.T, steps []step, ours, theirs []harness.Result) {
	t.Helper()
	for i, step := range steps {
		same := ours[i] == theirs[i]
		if !same && step.differs == "" {
			t.Errorf("line %d: $ %s\nengined: %d\n%s%s\ndockerd: %d\n%s%s", step.line, step.command,
				ours[i].Status, ours[i].Stdout, ours[i].Stderr, theirs[i].Status, theirs[i].Stdout, theirs[i].Stderr)
		}
		if same && step.differs != "" {
			t.Errorf("line %d: $ %s\nno longer differs from dockerd; take away: ~ %s", step.line, step.command, step.differs)
		}
	}
}
