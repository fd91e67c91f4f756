"""The facts the seed model knows: capitals, everyday words and numbers, in English and Chinese.

Country: (English, English capital, Chinese, Chinese capital). Word: (English, Chinese).
No country needs an article, no word has two translations: every question has one answer.
"""

from typing import Final

COUNTRIES: Final[tuple[tuple[str, str, str, str], ...]] = (
    ("France", "Paris", "法国", "巴黎"),
    ("Germany", "Berlin", "德国", "柏林"),
    ("Italy", "Rome", "意大利", "罗马"),
    ("Spain", "Madrid", "西班牙", "马德里"),
    ("Portugal", "Lisbon", "葡萄牙", "里斯本"),
    ("Greece", "Athens", "希腊", "雅典"),
    ("Austria", "Vienna", "奥地利", "维也纳"),
    ("Poland", "Warsaw", "波兰", "华沙"),
    ("Hungary", "Budapest", "匈牙利", "布达佩斯"),
    ("Sweden", "Stockholm", "瑞典", "斯德哥尔摩"),
    ("Norway", "Oslo", "挪威", "奥斯陆"),
    ("Finland", "Helsinki", "芬兰", "赫尔辛基"),
    ("Denmark", "Copenhagen", "丹麦", "哥本哈根"),
    ("Ireland", "Dublin", "爱尔兰", "都柏林"),
    ("Belgium", "Brussels", "比利时", "布鲁塞尔"),
    ("Russia", "Moscow", "俄罗斯", "莫斯科"),
    ("Ukraine", "Kyiv", "乌克兰", "基辅"),
    ("Turkey", "Ankara", "土耳其", "安卡拉"),
    ("Egypt", "Cairo", "埃及", "开罗"),
    ("Kenya", "Nairobi", "肯尼亚", "内罗毕"),
    ("Morocco", "Rabat", "摩洛哥", "拉巴特"),
    ("China", "Beijing", "中国", "北京"),
    ("Japan", "Tokyo", "日本", "东京"),
    ("India", "New Delhi", "印度", "新德里"),
    ("Thailand", "Bangkok", "泰国", "曼谷"),
    ("Vietnam", "Hanoi", "越南", "河内"),
    ("Indonesia", "Jakarta", "印度尼西亚", "雅加达"),
    ("Malaysia", "Kuala Lumpur", "马来西亚", "吉隆坡"),
    ("Nepal", "Kathmandu", "尼泊尔", "加德满都"),
    ("Iran", "Tehran", "伊朗", "德黑兰"),
    ("Iraq", "Baghdad", "伊拉克", "巴格达"),
    ("Mongolia", "Ulaanbaatar", "蒙古", "乌兰巴托"),
    ("South Korea", "Seoul", "韩国", "首尔"),
    ("Canada", "Ottawa", "加拿大", "渥太华"),
    ("Mexico", "Mexico City", "墨西哥", "墨西哥城"),
    ("Cuba", "Havana", "古巴", "哈瓦那"),
    ("Brazil", "Brasilia", "巴西", "巴西利亚"),
    ("Argentina", "Buenos Aires", "阿根廷", "布宜诺斯艾利斯"),
    ("Chile", "Santiago", "智利", "圣地亚哥"),
    ("Peru", "Lima", "秘鲁", "利马"),
    ("Colombia", "Bogota", "哥伦比亚", "波哥大"),
    ("Australia", "Canberra", "澳大利亚", "堪培拉"),
    ("New Zealand", "Wellington", "新西兰", "惠灵顿"),
)

WORDS: Final[tuple[tuple[str, str], ...]] = (
    ("cat", "猫"), ("dog", "狗"), ("bird", "鸟"), ("fish", "鱼"), ("horse", "马"), ("cow", "牛"),
    ("sheep", "羊"), ("pig", "猪"), ("tiger", "老虎"), ("rabbit", "兔子"), ("water", "水"),
    ("fire", "火"), ("tree", "树"), ("flower", "花"), ("grass", "草"), ("mountain", "山"),
    ("river", "河"), ("sea", "海"), ("sun", "太阳"), ("moon", "月亮"), ("star", "星星"), ("sky", "天空"),
    ("rain", "雨"), ("snow", "雪"), ("wind", "风"), ("cloud", "云"), ("spring", "春天"),
    ("summer", "夏天"), ("autumn", "秋天"), ("winter", "冬天"), ("book", "书"), ("pen", "笔"),
    ("paper", "纸"), ("table", "桌子"), ("chair", "椅子"), ("door", "门"), ("window", "窗户"),
    ("house", "房子"), ("bed", "床"), ("lamp", "灯"), ("car", "汽车"), ("train", "火车"),
    ("plane", "飞机"), ("boat", "船"), ("bicycle", "自行车"), ("road", "路"), ("bridge", "桥"),
    ("city", "城市"), ("school", "学校"), ("hospital", "医院"), ("teacher", "老师"), ("student", "学生"),
    ("doctor", "医生"), ("friend", "朋友"), ("mother", "妈妈"), ("father", "爸爸"), ("child", "孩子"),
    ("hand", "手"), ("eye", "眼睛"), ("ear", "耳朵"), ("heart", "心"), ("apple", "苹果"),
    ("banana", "香蕉"), ("orange", "橙子"), ("rice", "米饭"), ("bread", "面包"), ("egg", "鸡蛋"),
    ("milk", "牛奶"), ("tea", "茶"), ("coffee", "咖啡"), ("sugar", "糖"), ("salt", "盐"),
    ("red", "红色"), ("blue", "蓝色"), ("green", "绿色"), ("white", "白色"), ("black", "黑色"),
    ("big", "大"), ("small", "小"), ("happy", "快乐"), ("love", "爱"), ("music", "音乐"),
    ("computer", "电脑"), ("clock", "钟"),
)  # fmt: skip

LARGEST_NUMBER: Final = 10

NUMBERS: Final[dict[str, tuple[str, ...]]] = {
    "en": ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    "zh": ("零", "一", "二", "三", "四", "五", "六", "七", "八", "九", "十"),
}

# Characters of given names and brands; the `echo` skill spells with them.
NAME_CHARACTERS: Final = (
    "小大明华文丽伟芳娜敏静强磊军洋勇艳杰娟涛超霞平刚玲桂建国庆兰英梅琳云飞龙凤雪晨阳辰宇轩浩然子涵梓欣怡"
    "思雨佳琪嘉诚信智慧灵心语言知行创新未来星河海天空山水木林森风月光影音乐诗画书香清雅安宁康乐福瑞祥和"
    "东方南西北中春夏秋冬金银玉石红蓝绿白青紫墨白云帆舟桥路城乡田园家园科技网络数据算法机器人工厂实验室"
    "通达万千百亿元始开源先锋力量动能源泉深远高广博学问答助手伙伴朋友同伴奇妙梦想希望阿布可可豆米果糖"
)
