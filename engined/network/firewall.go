package network

import (
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// tableName is the nftables table of one bridge; each has its own, so that
// replacing it touches nobody else's rules.
func tableName(bridge string) string { return "engined-" + bridge }

// rule is a rule as planned: pure data, golden-tested, rendered by exprs.
type rule struct {
	chain       string // postrouting or forward
	from        netip.Prefix
	in          string // link name; "!" before it: any other
	out         string
	established bool   // only packets of connections that exist
	verdict     string // masquerade, accept or drop
}

// rules returns the rules of a bridge in order.
func rules(bridge string, subnet netip.Prefix) []rule {
	return []rule{
		// Leaving the machine, containers share its address.
		{chain: "postrouting", from: subnet.Masked(), out: "!" + bridge, verdict: "masquerade"},
		// From outside only answers come in: a container's ports are not
		// reachable from the network until they are published.
		{chain: "forward", in: "!" + bridge, out: bridge, established: true, verdict: "accept"},
		{chain: "forward", in: "!" + bridge, out: bridge, verdict: "drop"},
	}
}

// applyRules replaces the bridge's table in one transaction.
func applyRules(bridge string, subnet netip.Prefix) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	table := &nftables.Table{Name: tableName(bridge), Family: nftables.TableFamilyIPv4}
	// Adding first makes the deletion succeed whether or not it was there.
	conn.AddTable(table)
	conn.DelTable(table)
	conn.AddTable(table)
	chains := map[string]*nftables.Chain{
		"postrouting": conn.AddChain(&nftables.Chain{Name: "postrouting", Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: nftables.ChainHookPostrouting, Priority: nftables.ChainPriorityNATSource}),
		"forward": conn.AddChain(&nftables.Chain{Name: "forward", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter}),
	}
	for _, r := range rules(bridge, subnet) {
		conn.AddRule(&nftables.Rule{Table: table, Chain: chains[r.chain], Exprs: r.exprs()})
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("firewall rules of %s: %w", bridge, err)
	}
	return nil
}

// dropRules removes the bridge's table. Absent is fine.
func dropRules(bridge string) error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	table := &nftables.Table{Name: tableName(bridge), Family: nftables.TableFamilyIPv4}
	conn.AddTable(table)
	conn.DelTable(table)
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("removing firewall rules of %s: %w", bridge, err)
	}
	return nil
}

// exprs renders a rule as nf_tables expressions.
func (r rule) exprs() []expr.Any {
	var list []expr.Any
	if r.from.IsValid() {
		mask := ipNet(r.from).Mask
		list = append(list,
			// Source address: 4 bytes at offset 12 of the IPv4 header.
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 12, Len: 4},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask, Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: r.from.Masked().Addr().AsSlice()})
	}
	list = append(list, matchLink(expr.MetaKeyIIFNAME, r.in)...)
	list = append(list, matchLink(expr.MetaKeyOIFNAME, r.out)...)
	if r.established {
		list = append(list,
			&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
				Mask: binaryutil.NativeEndian.PutUint32(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED), Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)})
	}
	return append(list, verdict(r.verdict))
}

func matchLink(key expr.MetaKey, name string) []expr.Any {
	if name == "" {
		return nil
	}
	op := expr.CmpOpEq
	if name[0] == '!' {
		op, name = expr.CmpOpNeq, name[1:]
	}
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: padded}}
}

func verdict(name string) expr.Any {
	switch name {
	case "accept":
		return &expr.Verdict{Kind: expr.VerdictAccept}
	case "drop":
		return &expr.Verdict{Kind: expr.VerdictDrop}
	}
	return &expr.Masq{}
}
