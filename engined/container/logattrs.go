package container

import (
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"text/template"
)

// logAttributes are what is written with each line: labels and variables that the
// options name or match, the latter before the former, and the tag. As dockerd does
// it, a later one replaces an earlier one of the same name.
func logAttributes(r *Record) (map[string]string, error) {
	config, attributes := r.HostConfig.LogConfig.Config, map[string]string{}
	variables := make(map[string]string)
	for _, variable := range r.Config.Env {
		if name, value, found := strings.Cut(variable, "="); found {
			variables[name] = value
		}
	}
	for _, one := range []struct {
		option string
		have   map[string]string
	}{{"labels", r.Config.Labels}, {"env", variables}} {
		for name := range strings.SplitSeq(config[one.option], ",") {
			if value, has := one.have[name]; has && name != "" {
				attributes[name] = value
			}
		}
		if err := addMatching(attributes, one.have, one.option+"-regex", config[one.option+"-regex"]); err != nil {
			return nil, err
		}
	}
	tag, err := logTag(r, config["tag"])
	if err != nil {
		return nil, fmt.Errorf("tag: %w", err)
	}
	if tag != "" {
		attributes["tag"] = tag
	}
	return attributes, nil
}

func addMatching(attributes, have map[string]string, option, pattern string) error {
	if pattern == "" {
		return nil
	}
	expression, err := regexp.Compile(pattern)
	if err != nil {
		return fmt.Errorf("%s: %w", option, err)
	}
	for name, value := range have {
		if expression.MatchString(name) {
			attributes[name] = value
		}
	}
	return nil
}

// logTag renders a tag, which is a template of logInfo.
func logTag(r *Record, text string) (string, error) {
	parsed, err := template.New("log-tag").Funcs(tagFunctions).Parse(text)
	if err != nil {
		return "", err
	}
	var tag strings.Builder
	err = parsed.Execute(&tag, logInfo{
		ContainerID: r.ID, ContainerName: "/" + r.Name, ContainerEntrypoint: r.Path, ContainerArgs: r.Args,
		ContainerImageID: r.Image.String(), ContainerImageName: r.Config.Image, ContainerCreated: r.Created,
		ContainerEnv: r.Config.Env, ContainerLabels: r.Config.Labels, DaemonName: "docker",
	})
	return tag.String(), err
}

// tagFunctions are those of Docker's templates.
var tagFunctions = template.FuncMap{
	"json":  func(v any) (string, error) { text, err := json.Marshal(v); return string(text), err },
	"split": strings.Split,
	"join":  strings.Join,
	"lower": strings.ToLower,
	"upper": strings.ToUpper,
	"truncate": func(text string, length int) string {
		return text[:max(0, min(length, len(text)))]
	},
}

// logInfo has the names that tags know from Docker.
type logInfo struct {
	ContainerID         string
	ContainerName       string
	ContainerEntrypoint string
	ContainerArgs       []string
	ContainerImageID    string
	ContainerImageName  string
	ContainerCreated    any
	ContainerEnv        []string
	ContainerLabels     map[string]string
	DaemonName          string
}

// short is the length of an id that is cut. Of an image's it is not much: the
// algorithm's name is in it.
const short = 12

func (i logInfo) ID() string          { return i.ContainerID[:min(short, len(i.ContainerID))] }
func (i logInfo) FullID() string      { return i.ContainerID }
func (i logInfo) Name() string        { return strings.TrimPrefix(i.ContainerName, "/") }
func (i logInfo) ImageID() string     { return i.ContainerImageID[:min(short, len(i.ContainerImageID))] }
func (i logInfo) ImageFullID() string { return i.ContainerImageID }
func (i logInfo) ImageName() string   { return i.ContainerImageName }
func (i logInfo) Command() string {
	return strings.Join(append([]string{i.ContainerEntrypoint}, i.ContainerArgs...), " ")
}
func (i logInfo) Hostname() (string, error) { return os.Hostname() }
