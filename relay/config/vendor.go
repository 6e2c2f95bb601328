package config

import (
	"strings"

	"github.com/BurntSushi/toml"

	"github.com/smtp2rest/smtp2rest/relay/provider"
)

// vendorTags returns what replaces the words in angle brackets in tags: v is the vendor
// that is chosen, and all are those there are.
func vendorTags(v provider.Vendor, all []provider.Vendor) *strings.Replacer {
	var names, quoted []string
	for _, one := range all {
		names, quoted = append(names, one.Name), append(quoted, `\"`+one.Name+`\"`)
	}
	return strings.NewReplacer(
		"<provider>", v.Name, "<PROVIDER>", strings.ToUpper(v.Name), "<first provider>", names[0],
		"<providers>", strings.Join(names, " "), "<quoted providers>", strings.Join(quoted, ", "),
		"<url>", v.URL, "<path>", v.Path, "<register path>", v.RegisterPath,
	)
}

// chooseVendor chooses the vendor that api.provider names. It runs before the other settings
// are read, because the vendor has settings and defaults of its own. An unknown name is
// reported when the setting itself is read.
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
