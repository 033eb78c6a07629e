package harness

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Authority is a certificate authority of a test's own.
type Authority struct {
	Dir  string // ca.crt, server.crt, server.key, client.cert, client.key
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// NewAuthority makes one, with a certificate for a server at address and one for
// a client.
func NewAuthority(t testing.TB, address string) *Authority {
	t.Helper()
	a := &Authority{Dir: t.TempDir(), t: t}
	a.cert, a.key = a.issue(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature}, "ca.crt", "")
	a.issue(&x509.Certificate{IPAddresses: []net.IP{net.ParseIP(address)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, "server.crt", "server.key")
	a.issue(&x509.Certificate{ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, "client.cert", "client.key")
	return a
}

// issue signs a certificate, its own if there is none yet, and writes it.
func (a *Authority) issue(template *x509.Certificate, certFile, keyFile string) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: certFile}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(certFile, "CERTIFICATE", der)
	if keyFile != "" {
		raw, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			a.t.Fatal(err)
		}
		a.write(keyFile, "PRIVATE KEY", raw)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *Authority) write(file, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.Dir, file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// Issuer gives RegistryUser tokens for a registry, for whatever they ask, and
// anonymous ones for pulls.
type Issuer struct {
	URL string

	authority *Authority
	mu        sync.Mutex
	asked     []string // scopes; guarded by mu
}

// NewIssuer starts one that ends with the test.
func NewIssuer(t testing.TB, authority *Authority) *Issuer {
	i := &Issuer{authority: authority}
	server := httptest.NewServer(i)
	t.Cleanup(server.Close)
	// By name: addresses of private networks are not trusted to give tokens for
	// other hosts.
	i.URL = strings.Replace(server.URL, "127.0.0.1", "localhost", 1) + "/token"
	return i
}

// Asked returns the scopes that were asked for, and forgets them.
func (i *Issuer) Asked() []string {
	i.mu.Lock()
	defer i.mu.Unlock()
	asked := i.asked
	i.asked = nil
	return asked
}

// access is what a token allows.
type access struct {
	Type    string   `json:"type"`
	Name    string   `json:"name"`
	Actions []string `json:"actions"`
}

func (i *Issuer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	user, password, given := r.BasicAuth()
	if given && (user != RegistryUser || password != RegistryPassword) {
		http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"incorrect username or password"}]}`, http.StatusUnauthorized)
		return
	}
	granted := []access{}
	for _, scope := range r.URL.Query()["scope"] {
		for _, one := range strings.Fields(scope) {
			i.mu.Lock()
			i.asked = append(i.asked, one)
			i.mu.Unlock()
			parts := strings.Split(one, ":")
			if len(parts) != 3 {
				http.Error(w, "bad scope", http.StatusBadRequest)
				return
			}
			actions := strings.Split(parts[2], ",")
			if !given {
				actions = []string{"pull"}
			}
			granted = append(granted, access{parts[0], parts[1], actions})
		}
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"token": i.token(granted), "expires_in": 300}) // the client may be gone
}

// token is a JSON web token (RFC 7519) signed with the authority's key.
func (i *Issuer) token(granted []access) string {
	now := time.Now().Unix()
	header, _ := json.Marshal(map[string]any{"typ": "JWT", "alg": "ES256", "x5c": []string{base64.StdEncoding.EncodeToString(i.authority.cert.Raw)}})
	claims, _ := json.Marshal(map[string]any{"iss": "issuer", "sub": RegistryUser, "aud": "test", "exp": now + 300, "nbf": now - 10, "iat": now, "jti": rand.Text(), "access": granted})
	signed := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(claims)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, i.authority.key, sum[:])
	if err != nil {
		panic(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}
