package container

import (
	"fmt"
	"math/rand/v2"

	"github.com/engined/engined/proto/errdefs"
)

// Names that are made up have one of each and are easy to tell apart aloud.
var adjectives = []string{
	"able", "amber", "bold", "brave", "brisk", "calm", "candid", "civil", "clever", "coastal", "copper", "crisp",
	"daring", "deft", "eager", "early", "earnest", "fair", "fleet", "fond", "frank", "gentle", "glad", "golden",
	"hardy", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "mellow", "merry", "mild",
	"modest", "neat", "nimble", "noble", "patient", "placid", "plucky", "polite", "proud", "prudent", "quick",
	"quiet", "ready", "robust", "rustic", "serene", "sharp", "silver", "sober", "steady", "stout", "sunny",
	"swift", "tidy", "tranquil", "upbeat", "vivid", "warm", "wise", "witty",
}

var surnames = []string{
	"abel", "ampere", "bernoulli", "bohr", "boole", "born", "boyle", "brahe", "cantor", "cauchy", "celsius",
	"church", "copernicus", "coulomb", "curie", "dalton", "dijkstra", "dirac", "doppler", "erdos", "euclid",
	"euler", "faraday", "fermat", "fermi", "feynman", "fourier", "franklin", "galois", "gauss", "germain",
	"godel", "hamilton", "heaviside", "hertz", "hilbert", "hooke", "hopper", "hubble", "huygens", "jacobi",
	"joule", "kelvin", "kepler", "knuth", "kovalevskaya", "lagrange", "laplace", "leibniz", "linnaeus",
	"lovelace", "maxwell", "meitner", "mendel", "newton", "noether", "ohm", "pascal", "pauli", "planck",
	"poincare", "ramanujan", "riemann", "rontgen", "shannon", "tesla", "torricelli", "turing", "volta", "watt",
}

// makeUpName takes a free name of the form adjective_surname.
func (s *Service) makeUpName(r *Record) error {
	for attempt := range 100 {
		name := adjectives[rand.IntN(len(adjectives))] + "_" + surnames[rand.IntN(len(surnames))]
		if attempt > 5 {
			name = fmt.Sprintf("%s%d", name, rand.IntN(1000*attempt))
		}
		if s.index.reserve(name, r.ID) == nil {
			r.Name = name
			return nil
		}
	}
	return errdefs.Conflict.Errorf("found no free name for container %s", r.ID)
}
