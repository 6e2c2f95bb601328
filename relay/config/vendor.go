package config

import (
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/smtp2rest/smtp2rest/relay/provider"
)

// vendorTags fills in what tags say of the vendor, in angle brackets.
func vendorTags(v provider.Vendor, all []provider.Vendor) *strings.Replacer {
	var names []string
	for _, one := range all {
		names = append(names, one.Name)
	}
	return strings.NewReplacer(
		"<provider>", v.Name, "<PROVIDER>", strings.ToUpper(v.Name), "<providers>", strings.Join(names, " "),
		"<url>", v.URL, "<path>", v.Path, "<register path>", v.RegisterPath,
	)
}

// chooseVendor takes the vendor that api.provider names. It comes before the other
// settings, because the vendor has settings and defaults of its own. A name that is
// unknown is reported when the setting is read.
func (f *tomlFile) chooseVendor(top map[string]toml.Primitive) {
	for key, table := range top {
		if !strings.EqualFold(key, "api") {
			continue
		}
		values, _ := f.entry("", key, table).data.(map[string]any)
		for name, value := range values {
			for _, v := range f.src.Vendors {
				if strings.EqualFold(name, "provider") && value == v.Name {
					f.vendor = v
				}
			}
		}
	}
}
