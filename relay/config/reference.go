package config

// Section is one table of the file, explained, with its settings in order.
type Section struct {
	Name     string // "" for the settings above the first table
	Doc      string
	Repeated bool // [[name]], none or several of them
	Settings []Setting
}

// Reference lists every setting there is, for documentation, without
// values. A table that is repeated is there once.
func Reference() []Section {
	var list []Section
	all := everySetting()
	for _, sec := range sections() {
		s := Section{Name: sec.name, Doc: oneLine(sec.doc), Repeated: repeated(sec.name)}
		for _, setting := range all {
			if table, _ := splitPath(setting.path); table == sec.name {
				s.Settings = append(s.Settings, setting.document())
			}
		}
		list = append(list, s)
	}
	return list
}

// everySetting is the whole table, with one of each table that is repeated.
func everySetting() []setting {
	all := append(settingsOf(&Config{}), listenerSettings(&Listener{}, "listener")...)
	all = append(all, userSettings(&User{}, "user")...)
	return append(all, warmingSettings(&Warming{}, "warming")...)
}

func repeated(table string) bool {
	return table == "listener" || table == "user" || table == "warming"
}
